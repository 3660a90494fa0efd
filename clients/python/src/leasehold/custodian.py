"""The client of custodians and pipelines. Owns asking for rotations of provider keys, and handing in new ones.

It talks to a collector, or to the admin socket of a sidecar that runs alone. A pipeline shows its own OIDC token.
"""

import time
from collections.abc import Iterator

from leasehold import _methods as methods
from leasehold._connected import Connected
from leasehold._messages import new_request_id
from leasehold.v1 import key_service_pb2 as key

OVER = (key.ROTATION_STATE_DONE, key.ROTATION_STATE_FAILED)


class KeyClient(Connected):
    """Has provider keys rotated. Made and closed as `OperatorClient`."""

    def rotate(self, name: str, *, note: str = "", request_id: str | None = None) -> key.Rotation:
        """Ask for a rotation of the key `name`; durable on return, before it has begun.

        Args:
            name: of the key.
            note: why, for the audit log; never a secret.
            request_id: UUID; the same one by the same caller is the same rotation. Default: a fresh one.

        Raises:
            PermissionDenied: you may not have that key rotated. InvalidRequest: it is not rotated there.
        """
        request = key.RotateKeyRequest(request_id=request_id or new_request_id(), key=name, note=note)
        return self._link.call(methods.ROTATE, request).rotation

    def supply(self, name: str, value: str) -> key.Rotation:
        """Hand in the new value of a key whose rotation awaits one.

        Raises:
            InvalidRequest: none awaits it, or the provider refuses it.
        """
        request = key.SupplyKeyRequest(request_id=new_request_id(), key=name, key_value=value)
        return self._link.call(methods.SUPPLY, request).rotation

    def cancel(self, name: str, *, note: str = "", request_id: str | None = None) -> key.Rotation:
        """Give up the rotation `name`: its new key is ended, the present one stays. Given up before: no effect.

        Raises:
            InvalidRequest: its new key serves, or the present one does not work: then the new one is needed.
            LeaseholdError: it cannot be told whether that works (reason KEY_UNAVAILABLE).
        """
        request = key.CancelRotationRequest(request_id=request_id or new_request_id(), name=name, note=note)
        return self._link.call(methods.CANCEL_ROTATION, request).rotation

    def rotation(self, name: str) -> key.Rotation:
        """One rotation. Raises NotFound."""
        return self._link.call(methods.GET_ROTATION, key.GetRotationRequest(name=name)).rotation

    def rotations(self, name: str = "") -> Iterator[key.Rotation]:
        """Rotations of the key `name`, or of all keys, newest first, page by page."""
        token = ""
        while True:
            page = self._link.call(methods.LIST_ROTATIONS, key.ListRotationsRequest(key=name, page_token=token))
            yield from page.rotations
            token = page.next_page_token
            if not token:
                return

    def watch(self, name: str, timeout_seconds: float) -> Iterator[key.Rotation]:
        """A rotation at once and at each change, until it is over; a stream that has grown old is opened again.

        Raises:
            Unavailable: also when it is not over in time (reason DEADLINE_EXCEEDED).
            IdentityRejected: the token has ended meanwhile, and no fresh one is at its place. It goes on all the same.
        """
        request = key.WatchRotationRequest(name=name)
        ends_at, told = time.monotonic() + timeout_seconds, None
        while told is None or told.state not in OVER:
            left = max(0.001, ends_at - time.monotonic())
            for answer in self._link.stream(methods.WATCH_ROTATION, request, left):
                if answer.rotation != told:
                    told = answer.rotation
                    yield told
