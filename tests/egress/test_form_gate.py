"""The gate for forms: one meaning or a refusal, and what is written upstream says the same with every byte ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.form_gate import PARTS_MAX, form_boundary, parse_form
from leasehold_broker.ports.provider import Form, FormFile
from leasehold_broker.providers.form import written

TEXT_PART = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
FILE_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a b.mp3"\r\nContent-Type: audio/mpeg'
FILE_PART = FILE_HEAD + b"\r\n\r\n\r\n--x\r\n\r\n"
END = b"--b--\r\n"


def refusal(body: bytes) -> str:
    """Why this body is refused."""
    with pytest.raises(Refusal) as caught:
        parse_form(b"b", body)
    assert caught.value.reason is Reason.BODY_INVALID
    return caught.value.message


def test_a_form_is_read():
    """Texts and files, whatever the content; repeated names and names of lists are lists."""
    more = TEXT_PART.replace(b'"model"', b'"include[]"')
    form = parse_form(b"b", TEXT_PART + FILE_PART + more + END)

    assert dict(form) == {"model": "whisper-1", "include[]": ["whisper-1"]}
    assert form.files == (FormFile("file", b"\r\n--x\r\n"),)
    assert parse_form(b"b", TEXT_PART + TEXT_PART + END)["model"] == ["whisper-1", "whisper-1"]
    assert parse_form(b"b", b"--b--") == {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "start with its boundary"),
        (b"\r\n" + TEXT_PART + END, "start with its boundary"),
        (b"preamble\r\n" + TEXT_PART + END, "start with its boundary"),
        (TEXT_PART, "end with its boundary"),
        (TEXT_PART + END + b"more", "end with its boundary"),
        (TEXT_PART + b"--b\r\n", "end with its boundary"),
        (TEXT_PART.replace(b"\r\n", b"\n") + END, "end with its boundary"),
        (TEXT_PART.replace(b"form-data", b"attachment") + END, "no plain form-data"),
        (TEXT_PART.replace(b'"model"', b'"mo\\"del"') + END, "no plain form-data"),
        (TEXT_PART.replace(b'"model"', b"model") + END, "no plain form-data"),
        (TEXT_PART.replace(b'"model"', b'"model"; name="n"') + END, "no plain form-data"),
        (TEXT_PART.replace(b"\r\n\r\n", b"\r\ncontent-transfer-encoding: base64\r\n\r\n") + END, "a header other than"),
        (TEXT_PART.replace(b"\r\n\r\n", b'\r\ncontent-disposition: form-data; name="n"\r\n\r\n') + END, "a header"),
        (TEXT_PART.replace(b"\r\n\r\n", b"\r\n") + END, "well-formed headers"),
        (b"--b\r\ncontent-type: text/plain\r\n\r\nx\r\n" + END, "without a name"),
        (TEXT_PART.replace(b"whisper-1", b"\xff") + END, "not UTF-8"),
        (TEXT_PART + FILE_PART.replace(b'"file"', b'"model"') + END, "under one name"),
        (TEXT_PART * (PARTS_MAX + 1) + END, "more than"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body, said):
    """Preambles, epilogues, bare line feeds, escapes, codings, doubles: refused, with the rule, not the content."""
    assert said in refusal(body)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "multipart/form-data",
        "multipart/mixed; boundary=b",
        "multipart/form-data; boundary=",
        "application/json",
        "multipart/form-data; boundary=b; charset=utf-8",
        'multipart/form-data; boundary="b\\"c"',
    ],
)
def test_other_media_types_are_refused(kind):
    """Only multipart/form-data with one plain boundary."""
    with pytest.raises(Refusal) as caught:
        form_boundary({"content-type": kind})
    assert caught.value.reason is Reason.CONTENT_TYPE_NOT_ALLOWED


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}(\[\])?", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@given(
    st.dictionaries(NAMES, TEXTS | st.lists(TEXTS, min_size=2, max_size=3), max_size=4),
    st.lists(st.binary(max_size=60), max_size=3),
)
def test_what_is_written_is_what_was_read(fields, contents):
    """Every form that is read is written with our boundary, our names and the same contents, and reads the same."""
    fields = {
        name: [value] if name.endswith("[]") and isinstance(value, str) else value for name, value in fields.items()
    }
    files = tuple(FormFile("file", content) for content in contents if "file" not in fields)
    sent = written(Form(fields, files), tuple("sound.wav" for _ in files))

    again = parse_form(form_boundary({"content-type": sent.content_type}), sent.body)

    assert (dict(again), again.files) == (fields, files)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    """No bytes make the gate fail otherwise."""
    for candidate in (body, TEXT_PART + body, TEXT_PART + body + END):
        try:
            form = parse_form(b"b", candidate)
        except Refusal as refused:
            assert refused.reason is Reason.BODY_INVALID  # noqa: PT017 - a refusal is one of the good answers
        else:
            assert isinstance(form, Form)
