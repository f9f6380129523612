"""The parameters of a notebook: read from its parameters cell, checked before anything runs.

The cell tagged `parameters` holds typed assignments of literals, one per line, with a comment that says what the
parameter is and, in a bracket at its end, what the profiles set it to:

    units: int = 500  # reservoir units [smoke: 50, full: 5_000]

Types: int, float, str, bool, a list of one of these, and any of them `| None`. Other people's notebooks write plain
assignments, as papermill's documentation does: there the type is that of the value, and anything where it is computed.
"""

import ast
import contextlib
import difflib
import io
import math
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from frugal.errors import InputError

if TYPE_CHECKING:
    from nbformat import NotebookNode

PROFILES = ("smoke", "default", "full")
ITEM_TYPES = {kind.__name__: kind for kind in (int, float, str, bool)}


@dataclass(frozen=True)
class ParameterType:
    """What a parameter may hold: an `item`, or a list of them where `many`, or None where `optional`."""

    item: type
    many: bool = False
    optional: bool = False

    def __str__(self) -> str:
        item = "anything" if self.item is object else self.item.__name__
        name = f"list[{item}]" if self.many else item
        return f"{name} | None" if self.optional else name


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell; `profiles` maps a profile's name to its value.

    `inferred`: no type is declared, and it was taken from the value, of which `default` is the text if it is computed.
    """

    name: str
    type: ParameterType
    default: Any
    help: str = ""
    profiles: dict[str, Any] = field(default_factory=dict)
    inferred: bool = False


def read_parameters(notebook: "NotebookNode") -> list[Parameter]:
    """The parameters that the notebook's first cell tagged `parameters` declares, in its order; none without one.

    Values go right after that cell, as papermill puts them.

    Raises:
        InputError: a line declares a type, and is not `name: type = literal` of a type that parameters can have.
    """
    cells = tagged_cells(notebook)
    return parse_parameters(cells[0].source) if cells else []


def tagged_cells(notebook: "NotebookNode") -> "list[NotebookNode]":
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]


def set_again(notebook: "NotebookNode", names: Iterable[str]) -> list[str]:
    """Which of these names a later cell tagged `parameters` gives a value of its own, whatever was given for them."""
    later: set[str] = set()
    for cell in tagged_cells(notebook)[1:]:
        with contextlib.suppress(InputError):  # it need not have the form of parameters
            later.update(parameter.name for parameter in parse_parameters(cell.source))
    return [name for name in names if name in later]


def parse_parameters(source: str) -> list[Parameter]:
    """Read the source of a parameters cell; see the head of this module for the form."""
    if re.search(r"^\s*[%!]", source, re.MULTILINE):  # magics, which are no parameters
        from IPython.core.inputtransformer2 import TransformerManager

        source = TransformerManager().transform_cell(source)
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise InputError(f"parameters cell, line {error.lineno}: not Python ({error.msg})") from error
    comments = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = [parse_assignment(each, comments.get(each.end_lineno or 0, "")) for each in statements]
    parameters = [parameter for parameter in found if parameter is not None]
    names = [parameter.name for parameter in parameters]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"parameters cell: `{name}` is assigned twice; keep one line for it")
    return parameters


def parse_assignment(statement: ast.stmt, comment: str) -> Parameter | None:
    """The parameter that a statement declares; None for code that declares none, such as an import."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            try:
                default = ast.literal_eval(value)
            except ValueError:  # computed
                return Parameter(name, ParameterType(object), ast.unparse(value), comment, inferred=True)
            return Parameter(name, type_of(default), default, comment, inferred=True)
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value):
            kind = parse_type(annotation)
            if kind is None:
                raise InputError(
                    f"parameters cell: `{name}: {ast.unparse(annotation)}`: the type must be one of "
                    f"{', '.join(ITEM_TYPES)}, a list of one of these, or any of them `| None`"
                )
            help_text, profiles = parse_comment(comment)
            return Parameter(
                name,
                kind,
                read_literal(name, ast.unparse(value), kind),
                help_text,
                {profile: read_literal(f"{name} [{profile}]", text, kind) for profile, text in profiles.items()},
            )
        case ast.AnnAssign():
            raise InputError(
                f"parameters cell, line {statement.lineno}: `{ast.unparse(statement)}` is not of the form "
                "`name: type = value  # what it is`"
            )
    return None


def type_of(value: Any) -> ParameterType:
    """The type of a literal; anything for what no parameter's type covers."""
    if type(value) in ITEM_TYPES.values():
        return ParameterType(type(value))
    if isinstance(value, list) and len({type(item) for item in value}) == 1 and type(value[0]) in ITEM_TYPES.values():
        return ParameterType(type(value[0]), many=True)
    return ParameterType(object)


def parse_type(annotation: ast.expr) -> ParameterType | None:
    """The type that an annotation names, or None where parameters cannot have it."""
    match annotation:
        case ast.Name(id=name) if name in ITEM_TYPES:
            return ParameterType(ITEM_TYPES[name])
        case ast.Subscript(value=ast.Name(id="list"), slice=ast.Name(id=name)) if name in ITEM_TYPES:
            return ParameterType(ITEM_TYPES[name], many=True)
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            inner = parse_type(left)
            return inner and ParameterType(inner.item, inner.many, optional=True)
    return None


def parse_comment(comment: str) -> tuple[str, dict[str, str]]:
    """Split a comment into its help text and the source of each profile's value."""
    bracket = re.search(r"\[\s*[A-Za-z_]\w*\s*:", comment)
    if not bracket or not comment.endswith("]"):
        return comment, {}
    pieces = re.split(r"(?:^|,)\s*([A-Za-z_]\w*)\s*:", comment[bracket.start() + 1 : -1])
    profiles = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    for name in profiles:
        if name not in ("smoke", "full"):
            raise InputError(f"parameters cell: `# {comment}`: {name!r} is no profile; only smoke and full set values")
    return comment[: bracket.start()].strip(), profiles


def read_literal(name: str, source: str, kind: ParameterType) -> Any:
    """A value written as Python in the parameters cell."""
    try:
        value = ast.literal_eval(source.strip())
    except (ValueError, SyntaxError) as error:
        raise InputError(
            f"parameters cell: `{name} = {source.strip()}`: must be a plain literal, not computed"
        ) from error
    return conform(name, value, kind)


def read_text(value: Any, kind: ParameterType) -> Any:
    """Read text, alone or in a list, by the declared type; what cannot be read comes back as it is."""
    if isinstance(value, list):
        return [read_text(item, ParameterType(kind.item)) for item in value]
    if not isinstance(value, str):
        return value
    if kind.item is object:
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            return value
    if kind.optional and value.lower() in ("none", "null"):
        return None
    if kind.many:
        try:
            items = yaml.load(value, yaml.BaseLoader)  # leaves every item a string: the declared type decides
        except yaml.YAMLError:
            return value
        return read_text(items, kind) if isinstance(items, list) else value
    if kind.item is bool:
        return {"true": True, "false": False}.get(value.lower(), value)
    try:
        return kind.item(value)
    except ValueError:
        return value


def conform(name: str, value: Any, kind: ParameterType) -> Any:
    """Check a value against the declared type; an int may stand for a float."""
    if kind.item is object or (value is None and kind.optional):
        return value
    if kind.many:
        if not isinstance(value, list):
            raise InputError(f"{name}={value!r}: must be {kind}, written like [1, 2, 3]")
        return [conform(f"{name}[{at}]", item, ParameterType(kind.item)) for at, item in enumerate(value)]
    if kind.item is float and type(value) is int:
        value = float(value)
    if type(value) is not kind.item:
        raise InputError(f"{name}={value!r}: must be {kind}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name}={value!r}: must be a finite number")
    return value


def check(parameters: list[Parameter], given: dict[str, Any]) -> dict[str, Any]:
    """The given values, read and checked by the parameters' types.

    Text is read by the declared type: `007` stays "007" for a str, and `1e3` is refused for an int.

    Raises:
        InputError: a name is unknown (the sentence suggests the nearest one), a value has the wrong type, or it is
            less than the notebook counts with.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"{name}: unknown parameter; {hint}The notebook has: {', '.join(known) or 'none'}")
    types = {name: known[name].type for name in given}
    read = {name: conform(name, read_text(value, types[name]), types[name]) for name, value in given.items()}
    for name, value in read.items():
        check_count(known[name], value)
    return read


def check_count(parameter: Parameter, value: Any) -> None:
    """Refuse an int below 1, or below 0, and an empty list, where the notebook itself sets no such value."""
    if parameter.inferred:
        return
    declared = [parameter.default, *parameter.profiles.values()]
    if value == [] and [] not in declared:
        raise InputError(f"{parameter.name}=[]: must hold at least one value")
    if parameter.type.item is int and (own := _numbers(declared)):
        least = min(1, *own)
        if least >= 0 and min(_numbers([value]), default=least) < least:
            raise InputError(f"{parameter.name}={value}: must be at least {least}")


def _numbers(values: list[Any]) -> list[int]:
    """Those in the values, each a number, a list of them or None."""
    lists = (value if isinstance(value, list) else [value] for value in values)
    return [number for numbers in lists for number in numbers if number is not None]


def profile_values(parameters: list[Parameter], profile: str) -> dict[str, Any]:
    """What a profile sets; nothing for `default`."""
    if profile not in PROFILES:
        raise InputError(f"profile={profile!r}: must be one of {', '.join(PROFILES)}")
    return {each.name: each.profiles[profile] for each in parameters if profile in each.profiles}


def read_values_file(path: Path) -> dict[str, Any]:
    """Names and values from a YAML file; the values stay text, for `check` to read by the declared types.

    Raises:
        InputError: the file is missing or does not hold `name: value` lines.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as YAML ({reason}); write one `name: value` per line") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold one `name: value` per line")
    return values


def tabulate(parameters: list[Parameter]) -> str:
    """The parameters as an aligned table for a terminal: name, type, default, smoke, full, what it is."""
    rows = [["name", "type", "default", "smoke", "full", "what it is"]]
    for each in parameters:
        profiles = [repr(each.profiles[name]) if name in each.profiles else "" for name in ("smoke", "full")]
        rows.append([each.name, str(each.type), repr(each.default), *profiles, each.help])
    return aligned(rows)


def aligned(rows: list[list[str]]) -> str:
    """Rows of equal length as lines in which the columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
