"""Pinecone: how a project is reached, and the settings of an index."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..addresses import OptionalHttpUrl
from ..common import ApiModel, rules


class PineconeProvider(ApiModel):
    """A Pinecone project. Its API key is the `token` of the credentials."""

    control_url: str | None = OptionalHttpUrl
    """Address of the control plane, such as that of a gateway before it. `https://api.pinecone.io` when left out. The
    hosts of the indexes are those that it tells; over plain http they are asked over plain http, too."""
    project_id: str | None = Field(default=None, min_length=1, max_length=63, pattern=r"^[0-9a-z-]+$")
    """Id of the project, as its indexes' hosts have it (`<index>-<project>.svc…`): its identity. Found from a host when
    left out; an empty project is then told by the key that reaches it."""
    freshness_timeout_seconds: int | None = Field(default=None, ge=1, le=300)
    """Reads wait so long at most, until the index shows what the same process wrote. They do not wait when
    left out: Pinecone shows writes a little later. Serverless indexes only."""


class PineconeServerless(ApiModel):
    """A serverless index."""

    cloud: str = Field(min_length=1, max_length=32)
    """Cloud: `aws`, `gcp` or `azure`. Fixed at creation."""
    region: str = Field(min_length=1, max_length=64)
    """Region, such as `us-east-1`. Fixed at creation."""


class PineconePods(ApiModel):
    """An index on pods, `replicas` times `shards` of them. Its records cannot be listed, hence not copied from."""

    environment: str = Field(min_length=1, max_length=64)
    """Environment, such as `us-east1-gcp`. Fixed at creation."""
    pod_type: str = Field(pattern=r"^(s1|p1|p2)\.x(1|2|4|8)$", max_length=8)
    """Hardware and size, such as `p1.x1`. A larger size of the same hardware is taken in place (Costly), a smaller one
    never."""
    replicas: int | None = Field(default=None, ge=1, le=1000)
    """Copies. 1 when left out. Changed in place (Costly)."""
    shards: int | None = Field(default=None, ge=1, le=1000)
    """Pods that the records are spread over. 1 when left out. Fixed at creation."""


class PineconeReadCapacity(ApiModel):
    """Read capacity of a serverless index."""

    model_config = rules(
        (
            (
                "self.mode == 'Dedicated' ? (has(self.nodeType) && has(self.replicas) && has(self.shards)) : "
                "!(has(self.nodeType) || has(self.replicas) || has(self.shards))"
            ),
            "readCapacity: nodeType, replicas and shards go with mode Dedicated, and only with it",
        )
    )

    mode: Literal["OnDemand", "Dedicated"]
    """`OnDemand` is paid by the read, `Dedicated` has nodes of its own. Changed in place (Costly)."""
    node_type: str | None = Field(default=None, min_length=1, max_length=32)
    """Nodes, such as `b1` or `t1`. Changed in place (Costly)."""
    replicas: int | None = Field(default=None, ge=0, le=1000)
    """Copies of each shard; 0 serves no reads. Changed in place (Costly)."""
    shards: int | None = Field(default=None, ge=1, le=1000)
    """Shards that reads are spread over. Changed in place (Costly)."""


class PineconeTuning(ApiModel):
    """Settings of a Pinecone index. Serverless where Pinecone makes it by itself when neither block is set."""

    model_config = rules(
        ("!(has(self.serverless) && has(self.pods))", "spec.tuning.pinecone: set serverless or pods, not both"),
        ("!(has(self.readCapacity) && has(self.pods))", "spec.tuning.pinecone: readCapacity is for serverless indexes"),
    )

    serverless: PineconeServerless | None = None
    """A serverless index."""
    pods: PineconePods | None = None
    """An index on pods."""
    read_capacity: PineconeReadCapacity | None = None
    """Read capacity of a serverless index. `OnDemand` when left out."""
    deletion_protection: Literal["enabled", "disabled"] | None = None
    """Whether Pinecone refuses to delete the index, whoever asks. Changed in place (Safe)."""
