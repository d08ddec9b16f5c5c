"""The published Secret: whose it is, what it is to hold, and one write of it.

It carries labels and annotations, and never an owner reference: keys must be able to outlive the resource, and a backup
that is restored without it. Its annotations tell which key it holds, so that a restored cluster knows where it stands.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from string import Template
from typing import Any

from vectorwright.api.v1alpha1.apikeyrotation import RESERVED_TYPES, PublishedSecret, SecretAdoptionPolicy
from vectorwright.api.v1alpha1.common import ANNOTATION_CONSENT_PUBLISH, GROUP
from vectorwright.errors import Conflict, NotFound, Terminal
from vectorwright.kube import resources
from vectorwright.kube.client import FIELD_MANAGER, KubeClient, Object
from vectorwright.kube.secret_managers import MANAGED_BY, manager_of
from vectorwright.kube.status import rfc3339
from vectorwright.kube.watched import data_of
from vectorwright.rotation.base import KeyMaterial
from vectorwright.rotation.state import KeyRecord
from vectorwright.stores.base import OwnershipMark

from .cache import Key
from .rotation_consent import require_consent, secret_forbidden
from .rotation_memory import OWNER_ANNOTATION, ROTATION_LABEL, changed_meanwhile, label_of, state_name

KEY_ID = f"{GROUP}/key-id"
KEY_NAME = f"{GROUP}/key-name"
KEY_REVISION = f"{GROUP}/key-revision"
ISSUED_AT = f"{GROUP}/issued-at"
NOT_AFTER = f"{GROUP}/not-after"
FIELDS = f"{GROUP}/fields"
"""Names of the fields that are ours, with commas: those that the spec no longer wants are taken away."""
_OURS = (KEY_ID, KEY_NAME, KEY_REVISION, ISSUED_AT, NOT_AFTER, FIELDS, OWNER_ANNOTATION)


def owner_of(body: Object) -> str | None:
    """The mark of the rotation that publishes in a Secret."""
    mark: str | None = (body["metadata"].get("annotations") or {}).get(OWNER_ANNOTATION)
    return mark


@dataclass(frozen=True, slots=True)
class Filling:
    """What the fields of the Secret are made of."""

    key: KeyRecord
    """With its value."""
    previous: KeyMaterial | None
    """The key before, while it is valid."""
    endpoint: str
    host: str
    port: str


def _fields(spec: PublishedSecret, filling: Filling) -> dict[str, str]:
    """The fields that the Secret is to have. Raises Terminal (``InvalidSpec``) for placeholders that mean nothing."""
    material = filling.key.material
    parts = material.parts if material is not None else {}
    names = spec.keys.dump() if spec.keys else {}
    fields = {names.get(part, part): value for part, value in parts.items()}
    if len(fields) != len(parts):
        raise Terminal("spec.secret.keys: two parts of the credential have the same key", reason="InvalidSpec")
    meanings = {
        "token": "",
        **parts,
        "previousToken": (filling.previous.token if filling.previous else None) or "",
        "endpoint": filling.endpoint,
        "host": filling.host,
        "port": filling.port,
        "keyId": filling.key.id,
        "revision": str(filling.key.revision),
    }
    for name, template in (spec.data or {}).items():
        if name in fields:
            raise Terminal(f"spec.secret.data: {name!r} is a key of the credential itself", reason="InvalidSpec")
        try:
            fields[name] = Template(template).substitute(meanings)
        except (KeyError, ValueError):
            raise Terminal(
                f"spec.secret.data: {name!r} has a placeholder that means nothing here; there are "
                f"{', '.join(f'${{{meaning}}}' for meaning in sorted(meanings))}, and $$ for a dollar sign",
                reason="InvalidSpec",
            ) from None
    return fields


@dataclass(slots=True)
class Publication:
    """The published Secret of one resource: what is there, and what is to be there."""

    client: KubeClient
    key: Key
    owner: OwnershipMark
    spec: PublishedSecret
    body: Object | None = field(repr=False)
    """As it was read last; None when there is none."""

    @property
    def namespace(self) -> str:
        """Where it is."""
        return self.spec.namespace or self.key.namespace

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.spec.name}"

    @property
    def ours(self) -> bool:
        """Whether it is there and carries this resource's mark."""
        return self.body is not None and owner_of(self.body) == str(self.owner)

    @property
    def published_at(self) -> datetime:
        """When we wrote it last, by the API server's clock; now, where that is not told."""
        entries = self.body["metadata"].get("managedFields") or () if self.body else ()
        times = [entry["time"] for entry in entries if entry.get("manager") == FIELD_MANAGER and entry.get("time")]
        return max((datetime.fromisoformat(time) for time in times), default=datetime.now(UTC))

    def check(self) -> None:
        """Whether we may publish here. Raises Terminal (``ConsentMissing``, ``SecretManaged``, ``SecretNotOurs``,
        ``SecretExists``, ``SecretImmutable``, ``SecretTypeDiffers``): nothing was touched.
        """
        body = self.body
        if self.namespace == self.key.namespace and self.spec.name == state_name(self.key.name):
            raise Terminal(
                f"spec.secret.name: in {self.spec.name} this rotation keeps what it has to remember: choose another",
                reason="InvalidSpec",
            )
        require_consent(body, self.namespace, self.spec.name, self.key, ANNOTATION_CONSENT_PUBLISH)
        if body is None:
            return
        if body.get("immutable"):
            raise Terminal(f"{self} is immutable: delete it, or choose another name", reason="SecretImmutable")
        if manager := manager_of(body, {*(self.spec.labels or {}), *(self.spec.annotations or {})}):
            raise Terminal(
                f"{self} is managed by {manager}, which would undo what is published: give spec.secret another name; "
                "to have keys in an external vault, publish here and send them there (a PushSecret of External Secrets "
                "whose selector names this rotation's Secret)",
                reason="SecretManaged",
            )
        if self.ours:
            return
        if other := owner_of(body):
            raise Terminal(f"{self} belongs to the rotation {other}: choose another name", reason="SecretNotOurs")
        kind = body.get("type") or "Opaque"
        if kind in RESERVED_TYPES or (self.spec.type and self.spec.type != kind):
            raise Terminal(f"{self} is of type {kind}: choose another name", reason="SecretTypeDiffers")
        empty = not body.get("data") and self.namespace != self.key.namespace
        if self.spec.adoption_policy is not SecretAdoptionPolicy.IF_UNMANAGED and not empty:
            raise Terminal(
                f"{self} exists and was not made by this rotation: choose another name, delete it, or set "
                "spec.secret.adoptionPolicy to IfUnmanaged, which overwrites what it holds",
                reason="SecretExists",
            )

    def held(self) -> KeyRecord | None:
        """The key that its annotations tell of, and whether its value is there; None where it is not ours, or
        broken."""
        if not self.ours or self.body is None:
            return None
        annotations = self.body["metadata"]["annotations"]
        try:
            not_after = annotations.get(NOT_AFTER)
            return KeyRecord(
                revision=int(annotations[KEY_REVISION]),
                id=annotations[KEY_ID],
                name=annotations[KEY_NAME],
                issued_at=datetime.fromisoformat(annotations[ISSUED_AT]),
                not_after=datetime.fromisoformat(not_after) if not_after else None,
                material=self._material(self.body),
                made=True,
            )
        except (KeyError, ValueError):
            return None

    def found(self) -> KeyMaterial | None:
        """The credential that is in the Secret, whoever put it there."""
        return self._material(self.body) if self.body is not None else None

    def data_differs(self, filling: Filling) -> bool:
        """Whether consumers would read something else than what is to be there. False where nothing is there."""
        if self.body is None:
            return False
        there = self.body.get("data") or {}
        return any(there.get(name) != value for name, value in self._wanted(filling)["data"].items())

    def held_before(self) -> KeyMaterial | None:
        """The token before, where a field of the Secret is to hold it and nothing else, and does."""
        if not self.ours or self.body is None:
            return None
        data = data_of(self.body, resources.SECRETS)
        for name, template in (self.spec.data or {}).items():
            if template.strip() == "${previousToken}" and (
                value := data.get(name, b"").decode(errors="replace").strip()
            ):
                return KeyMaterial(token=value)
        return None

    def _material(self, body: Object) -> KeyMaterial | None:
        """The credential that the Secret holds now."""
        data, names = data_of(body, resources.SECRETS), self.spec.keys.dump() if self.spec.keys else {}
        parts = {part: data.get(names.get(part, part)) for part in ("token", "username", "password")}
        try:
            found = {part: value.decode() for part, value in parts.items() if value}
        except UnicodeDecodeError:
            return None
        return KeyMaterial(**found) if found else None

    def differences(self, filling: Filling) -> list[str]:
        """Names of fields, labels and annotations that are not as they are to be; all of them where nothing is
        there."""
        wanted = self._wanted(filling)
        body = self.body or {"metadata": {}}
        found: list[str] = []
        for part, values in (("data", wanted["data"]), *wanted["metadata"].items()):
            there = (body if part == "data" else body["metadata"]).get(part) or {}
            found += [name for name, value in values.items() if there.get(name) != value]
        return sorted(found)

    def _wanted(self, filling: Filling) -> dict[str, Any]:
        record, fields = filling.key, _fields(self.spec, filling)
        ours = {
            OWNER_ANNOTATION: str(self.owner),
            KEY_ID: record.id,
            KEY_NAME: record.name,
            KEY_REVISION: str(record.revision),
            ISSUED_AT: rfc3339(record.issued_at),
            FIELDS: ",".join(sorted(fields)),
        }
        if record.not_after is not None:
            ours[NOT_AFTER] = rfc3339(record.not_after)
        return {
            "metadata": {
                "labels": {
                    **(self.spec.labels or {}),
                    MANAGED_BY: "vectorwright",
                    ROTATION_LABEL: label_of(self.key.name),
                },
                "annotations": {**(self.spec.annotations or {}), **ours},
            },
            "data": {name: base64.b64encode(value.encode()).decode() for name, value in fields.items()},
        }

    async def _rehearse(self, wanted: dict[str, Any]) -> None:
        """Have the API server look at a write, with admission and rights, and not do it. Raises Terminal, Retryable."""
        name, namespace = self.spec.name, self.namespace
        try:
            if self.body is None:
                wanted["metadata"] |= {"name": name, "namespace": namespace}
                made = {**wanted, "type": self.spec.type or "Opaque"}
                await self.client.create(resources.SECRETS, made, namespace, dry_run=True)
            else:
                await self.client.patch(resources.SECRETS, name, namespace, wanted, dry_run=True)
        except (Conflict, NotFound):
            raise changed_meanwhile(namespace, name) from None
        except Terminal as error:
            raise secret_forbidden(error, namespace, name) from None

    async def publish(self, filling: Filling, *, rehearsal: bool = False) -> bool:
        """Bring the Secret to what it is to be, by one write of the version that was read; False when it is so already.

        Fields of others in it are left alone. Raises Retryable (``ChangedMeanwhile``), Terminal.
        """
        self.check()
        wanted = self._wanted(filling)
        if rehearsal:
            await self._rehearse(wanted)
            return False
        stale = self._stale(wanted)
        if self.body is not None and not stale and not self.differences(filling):
            return False
        name, namespace = self.spec.name, self.namespace
        try:
            if self.body is None:
                wanted["metadata"] |= {"name": name, "namespace": namespace}
                made = {**wanted, "type": self.spec.type or "Opaque"}
                self.body = await self.client.create(resources.SECRETS, made, namespace)
            else:
                wanted["metadata"]["resourceVersion"] = self.body["metadata"]["resourceVersion"]
                wanted["data"] |= dict.fromkeys(stale)
                if NOT_AFTER not in wanted["metadata"]["annotations"]:
                    wanted["metadata"]["annotations"][NOT_AFTER] = None
                self.body = await self.client.patch(resources.SECRETS, name, namespace, wanted)
        except (Conflict, NotFound):
            raise changed_meanwhile(namespace, name) from None
        except Terminal as error:
            raise secret_forbidden(error, namespace, name) from None
        return True

    def _stale(self, wanted: Mapping[str, Any]) -> set[str]:
        """Fields that we once wrote and that are wanted no more."""
        if self.body is None or not self.ours:
            return set()
        written = set(self.body["metadata"]["annotations"].get(FIELDS, "").split(",")) - {""}
        return (written - set(wanted["data"])) & set(self.body.get("data") or {})

    async def remove(self) -> None:
        """Delete the Secret if it is ours; one that was there before us loses only what we put into it."""
        if not self.ours or self.body is None:
            return
        metadata = self.body["metadata"]
        left = set(self.body.get("data") or {}) - set(metadata["annotations"].get(FIELDS, "").split(","))
        try:
            if left or self.namespace != self.key.namespace:
                ours = set(metadata["annotations"].get(FIELDS, "").split(",")) - {""}
                await self.client.patch(
                    resources.SECRETS,
                    self.spec.name,
                    self.namespace,
                    {
                        "metadata": {
                            "resourceVersion": metadata["resourceVersion"],
                            "annotations": dict.fromkeys(_OURS),
                            "labels": {MANAGED_BY: None, ROTATION_LABEL: None},
                        },
                        "data": dict.fromkeys(ours),
                    },
                )
            else:
                await self.client.delete(resources.SECRETS, self.spec.name, self.namespace, uid=metadata["uid"])
        except NotFound:
            pass
        except Conflict:
            raise changed_meanwhile(self.namespace, self.spec.name) from None
        self.body = None
