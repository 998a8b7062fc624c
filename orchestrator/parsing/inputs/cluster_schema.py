"""The shape of an inventory file: strict types, units and meanings, no unknown keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from orchestrator.core.base.nodeset import MAX_NAME_LENGTH
from orchestrator.core.base.suggest import describe_value
from orchestrator.core.model.inventory import DECLARED_TRANSPORTS
from orchestrator.parsing.inputs.container_schema import Container
from orchestrator.parsing.inputs.destinations import (
    LOGIN,
    MAX_PORT,
    check_host,
    check_node_names,
    check_nodeset,
)
from orchestrator.parsing.inputs.validation import Strict

# Also the second set of controls, and what reorders a line: this text is shown on terminals.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]*")
_HOP_HOST = r"(\[[A-Za-z0-9:.%]+\]|[A-Za-z0-9_][A-Za-z0-9._%-]*)"
_HOP = rf"({_USER.pattern}@)?{_HOP_HOST}(:[0-9]{{1,5}})?"
_JUMP = re.compile(rf"{_HOP}(,{_HOP})*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})", re.ASCII)
MAX_TEXT = 4096
MAX_ENV_VALUE = 65_536


def _clean_text(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("holds a control character")
    return text


def _check_path(text: str) -> str:
    if not text.strip() or text.startswith("-"):
        raise ValueError(f"not a path: {text!r}")
    return _clean_text(text)


def _without_variables(text: str) -> str:
    if _VARIABLE.search(text):
        raise ValueError(f"{text!r}: variables are not expanded here; write the path, or ~/")
    return _check_path(text)


def _remote_path(text: str) -> str:
    """A path on the node, where ``$NAME`` and ``${NAME}`` are expanded, and nothing else is."""
    if "$" in _VARIABLE.sub("", text):
        raise ValueError(f"{text!r}: only $NAME and ${{NAME}} are expanded on the node")
    return _check_path(text)


def _remote_folder(text: str) -> str:
    if not text.startswith(("/", "~/", "$")):
        raise ValueError(f"{text!r} must start with /, ~/ or $NAME: it is a folder on the node")
    return _remote_path(text)


def _matching_validator(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if len(text) > MAX_NAME_LENGTH or not pattern.fullmatch(text):
            raise ValueError(f"not {what}: {text[:80]!r}")
        return text

    return AfterValidator(check)


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_clean_text)]
LocalPath = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_without_variables)]
RemotePath = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_remote_path)]
RemoteFolder = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_remote_folder)]
Label = Annotated[str, _matching_validator(_LABEL, "a plain name (letters, digits, . _ -)")]
EnvName = Annotated[str, _matching_validator(_ENV_NAME, "an environment variable name")]
User = Annotated[str, _matching_validator(LOGIN, "a user name")]
Jump = Annotated[str, _matching_validator(_JUMP, "a jump host ([user@]host[:port])")]
Names = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(check_nodeset)]
NodeNames = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(check_node_names)]
Host = Annotated[str, AfterValidator(check_host)]


if TYPE_CHECKING:
    TransportName = str
else:  # derived, so that a transport is declared once
    TransportName = Literal[tuple(kind.value for kind in DECLARED_TRANSPORTS)]


class GpuEntry(Strict):
    """Declared GPUs; the number N is short for {count: N}."""

    count: int | None = Field(
        default=None, ge=0, le=64, description="GPUs in the node; omitted = as many as are found"
    )
    type: Label | None = Field(
        default=None, description="Model to expect in the driver's name, e.g. H100"
    )
    indices: list[Annotated[int, Field(ge=0, lt=64)]] | None = Field(
        default=None, min_length=1, description="Use only these GPUs, by driver index from 0"
    )

    @model_validator(mode="after")
    def _consistent(self) -> GpuEntry:
        if self.indices is not None and len(set(self.indices)) != len(self.indices):
            raise ValueError("indices name a GPU twice")
        if self.indices and self.count is not None and max(self.indices) >= self.count:
            raise ValueError(f"index {max(self.indices)} does not exist among {self.count} GPUs")
        return self


class PythonEntry(Strict):
    """The interpreter for ranks: at most one source; a text T is short for {interpreter: T}."""

    interpreter: RemotePath | None = Field(
        default=None, description="Program name or path on the node"
    )
    venv: RemotePath | None = Field(
        default=None, description="Virtual environment folder on the node"
    )
    conda: RemotePath | None = Field(default=None, description="Conda environment name or prefix")
    requirements: LocalPath | None = Field(
        default=None,
        description="Requirements file beside the inventory; built and cached on the node",
    )
    workload: Literal[True] | None = Field(
        default=None,
        description="true: build from the workload's own requirements, cached on the node",
    )
    base: LocalPath | None = Field(
        default=None, description="Interpreter that environments are built with (default python3)"
    )

    @model_validator(mode="after")
    def _one_source(self) -> PythonEntry:
        if len(self.sources) > 1:
            raise ValueError(f"give one of {', '.join(self.sources)}, not several")
        return self

    @property
    def sources(self) -> list[str]:
        """The sources that are given, in the order of the schema."""
        fields = type(self).model_fields
        return [name for name in fields if name != "base" and getattr(self, name)]


class SecretEntry(Strict):
    """A value read on the coordinator when a run starts, never written to a file or a log."""

    secret: EnvName = Field(description="Environment variable of the coordinator that holds it")


def _normalise_gpus(value: Any) -> Any:
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _normalise_python(value: Any) -> Any:
    return {"interpreter": value} if isinstance(value, str) else value


def _normalise_node(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _env_value(value: Any) -> str | SecretEntry:
    if isinstance(value, dict):
        try:
            return SecretEntry.model_validate(value)
        except ValidationError:
            raise ValueError("expected {secret: NAME}, NAME an environment variable") from None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and len(value) <= MAX_ENV_VALUE:
        return value
    found = (
        f"more than {MAX_ENV_VALUE} characters" if isinstance(value, str) else describe_value(value)
    )
    raise ValueError(f"expected text, a whole number or {{secret: NAME}}, found {found}; quote it")


Gpus = Annotated[GpuEntry, BeforeValidator(_normalise_gpus, json_schema_input_type=int | GpuEntry)]
Python = Annotated[
    PythonEntry, BeforeValidator(_normalise_python, json_schema_input_type=str | PythonEntry)
]
EnvValue = Annotated[
    str | SecretEntry,
    PlainValidator(_env_value, json_schema_input_type=str | int | SecretEntry),
]


class NodeFields(Strict):
    """What may stand in `defaults` and, overriding them, in a node."""

    role: Literal["worker", "coordinator"] | None = Field(
        default=None, description="coordinator: contacted, but runs no rank (default worker)"
    )
    transport: TransportName | None = Field(
        default=None,
        description="How the node is reached (default asyncssh): openssh = your own ssh, whose "
        "connection stays; auto = openssh where ssh_config needs it; local = this machine",
    )
    user: User | None = Field(default=None, description="SSH user; omitted = from ssh_config")
    port: int | None = Field(
        default=None, ge=1, le=MAX_PORT, description="SSH port; omitted = from ssh_config"
    )
    key: LocalPath | None = Field(default=None, description="Private key file on the coordinator")
    jump: Jump | None = Field(default=None, description="Jump host, as ssh -J: [user@]host[:port]")
    ssh_config: LocalPath | None = Field(
        default=None, description="ssh_config file (default the user's); none = none at all"
    )
    known_hosts: LocalPath | None = Field(
        default=None,
        description="known_hosts file (default the user's); host keys are always checked",
    )
    gpus: Gpus | None = Field(
        default=None, description="GPUs declared: a number, or count/type/indices"
    )
    python: Python | None = Field(
        default=None, description="Python for the ranks (default python3)"
    )
    workdir: RemoteFolder | None = Field(
        default=None,
        description="Where orchestrate keeps its files on the node (default ~/.orchestrate); $NAME "
        "is expanded there",
    )
    env: dict[EnvName, EnvValue] = Field(
        default_factory=dict, description="Environment of the ranks; merged over the defaults"
    )
    container: Container | None = Field(default=None, description="What the ranks run in")
    price_per_hour: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Price of the node per hour, in `currency`",
    )
    groups: list[Label] = Field(default_factory=list, description="Groups that the node is in")


class NodeEntry(NodeFields):
    """A node, or several by a folded name; the text N is short for {name: N}."""

    name: NodeNames = Field(description="Node name, or folded names such as gpu[01-16]")
    ssh: Host | None = Field(
        default=None,
        description="SSH alias or host name (default the node's name); folds like the name",
    )


Node = Annotated[
    NodeEntry, BeforeValidator(_normalise_node, json_schema_input_type=str | NodeEntry)
]


class ExpectationEntry(Strict):
    """A figure that the owner recorded: a claim to check, not a truth."""

    metric: Label = Field(description="Metric name")
    value: float = Field(allow_inf_nan=False, description="The figure, in `unit`")
    unit: Text = Field(description="Unit, e.g. GB/s")
    source: Text = Field(description="Source of the figure")


class ClusterFile(Strict):
    """An inventory: the machines, how SSH reaches them, what they hold."""

    name: Label = Field(description="Cluster name, as in --cluster NAME")
    summary: Text = Field(default="", description="One line for lists")
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = Field(
        default="USD", description="ISO 4217 code of the prices"
    )
    min_nodes: int | None = Field(
        default=None,
        ge=1,
        description="Go on when bad nodes are excluded, if at least this many remain",
    )
    defaults: NodeFields = Field(
        default_factory=NodeFields, description="Fields for every node; maps merge, others override"
    )
    nodes: list[Node] = Field(
        min_length=1, description="The nodes in rank order: names, folded names, or mappings"
    )
    groups: dict[Label, Names] = Field(
        default_factory=dict, description="Group name -> folded node names, for --nodes @group"
    )
    expectations: list[ExpectationEntry] = Field(
        default_factory=list, description="Figures recorded for these machines, with their source"
    )
