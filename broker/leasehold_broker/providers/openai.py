"""OpenAI: Chat Completions, Responses, Embeddings, pictures, speech, transcriptions and Models.

Source of the shapes: openai 3.54.0.
"""

from typing import Final

from leasehold_broker.domain.price import Usage
from leasehold_broker.providers import openai_body as shapes
from leasehold_broker.providers.checks import Object
from leasehold_broker.providers.openai_audio import Speech, Transcription
from leasehold_broker.providers.openai_chat import Chat, Embeddings, Moderations
from leasehold_broker.providers.openai_host import HostShape, OpenAIHost
from leasehold_broker.providers.openai_images import Edits, Generations
from leasehold_broker.providers.openai_responses import Responses
from leasehold_broker.providers.usage import openai_usage

_WHO_PAYS: Final = (
    "it chooses who pays, which is the broker's part; leave it out (unset the variable that the SDK reads)"
)
REFUSED_HEADERS: Final = {"openai-organization": _WHO_PAYS, "openai-project": _WHO_PAYS}
REFUSED_PATHS: Final = {
    "/batches": "a batch runs for a day, after its lease; send the calls themselves",
    "/files": "a stored file is read by calls that nobody can bound; send its text in the request",
    "/uploads": "a stored file is read by calls that nobody can bound; send its text in the request",
    "/fine_tuning": "training has no bound that a request states; let the platform team run it",
    "/realtime": "a session has no bound on what it costs; use chat/completions or responses",
    "/vector_stores": "storage is billed by the day, without an end; keep the documents yourself",
    "/assistants": "a stored conversation has no bound on its cost; use responses",
    "/threads": "a stored conversation has no bound on its cost; use responses",
    "/containers": "a container is billed by time, without an end; run the code yourself",
    "/images/variations": "only dall-e has variations, which is billed by size; use images/edits",
    "/audio/": "voices are not served",
    "/videos": "a video's cost is not in the price table; it is not served",
}


def chat_usage(answer: Object) -> Usage | None:
    """Usage of a chat answer or chunk, or of an embedding."""
    return openai_usage(answer.get("usage"), answer.get("service_tier"), prompt="prompt", completion="completion")


SHAPE: Final = HostShape(
    name="openai",
    origin="https://api.openai.com",
    prefix="/v1",
    operations={
        "/chat/completions": Chat(shapes.OPENAI_CHAT, chat_usage),
        "/responses": Responses(),
        "/embeddings": Embeddings(shapes.EMBEDDING_FIELDS, chat_usage),
        "/moderations": Moderations(),
        "/images/generations": Generations(),
        "/images/edits": Edits(),
        "/audio/speech": Speech(),
        "/audio/transcriptions": Transcription(),
        "/audio/translations": Transcription("audio.translations"),
    },
    refused_headers=REFUSED_HEADERS,
    refused_paths=REFUSED_PATHS,
)


class OpenAI(OpenAIHost):
    """The port `Provider` for OpenAI."""

    def __init__(self) -> None:
        """Serve what the table lists."""
        super().__init__(SHAPE)
