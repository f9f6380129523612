"""pyproject.toml is the truth about the environment; everything else that names a version agrees with it."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import MatchSpec, VersionSpec
from rattler import Version as CondaVersion

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]]
CONSTRAINTS = {
    canonicalize_name(name): version
    for name, version in (
        line.split("==") for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
}
PYTHONS = [text.rsplit(maxsplit=1)[1] for text in PROJECT["classifiers"] if "Python :: 3." in text]
WORKFLOW = CHECKOUT / ".github/workflows/test.yml"
CONDA = yaml.safe_load((CHECKOUT / "environment.yml").read_text())["dependencies"]
PYPI_NAME = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}  # where conda-forge calls it otherwise


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_each_requirement_has_a_tested_version_in_its_range(requirement: Requirement) -> None:
    assert Version(CONSTRAINTS[canonicalize_name(requirement.name)]) in requirement.specifier


def test_constraints_are_bare_exact_versions() -> None:
    for name, version in CONSTRAINTS.items():
        assert str(Version(version)) == version.strip()
        assert Version(version).local is None, f"{name} names a local build, which a registry does not have"


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_name_all_that_each_python_installs(python: str) -> None:
    wanted, seen = REQUIREMENTS.copy(), set()
    while wanted:
        requirement = wanted.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        assert name in CONSTRAINTS or name.startswith(("cuda", "nvidia", "triton")), f"{name} has no exact version"
        wanted += asked_for_by(name, requirement.extras, python)


def asked_for_by(name: str, extras: set[str], python: str) -> list[Requirement]:
    """What a distribution asks for under one version of Python; nothing if only others have installed it."""
    try:
        asked = [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []
    environments = [
        {"python_version": python, "python_full_version": f"{python}.0", "extra": extra} for extra in ("", *extras)
    ]
    return [part for part in asked if part.marker is None or any(part.marker.evaluate(each) for each in environments)]


def test_torch_is_capped_so_that_no_newer_build_brings_gigabytes_of_cuda() -> None:
    torch = next(requirement for requirement in REQUIREMENTS if requirement.name == "torch")
    assert any(specifier.operator == "<" for specifier in torch.specifier)


@pytest.mark.parametrize("text", [line for line in CONDA if isinstance(line, str)])
def test_each_conda_line_is_a_valid_specification_that_agrees(text: str) -> None:
    spec = MatchSpec(text, strict=True)
    name = spec.name.normalized
    if name == "pip":
        return
    if name == "python":
        assert set(str(spec.version).split(",")) == set(PROJECT["requires-python"].split(","))
        return
    name = PYPI_NAME.get(name, name)
    requirement = next(requirement for requirement in REQUIREMENTS if requirement.name == name)
    assert set(str(spec.version).split(",")) == set(str(requirement.specifier).split(","))
    assert VersionSpec(str(spec.version)).matches(CondaVersion(CONSTRAINTS[canonicalize_name(name)]))


def test_conda_installs_this_package_itself_last() -> None:
    assert CONDA[-1] == {"pip": ["-e ."]}


def test_the_package_imported_is_the_one_of_this_checkout() -> None:
    import frugal

    assert Path(frugal.__file__).is_relative_to(CHECKOUT)


def test_git_keeps_the_library_and_leaves_out_what_is_fetched_or_made() -> None:
    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=CHECKOUT, check=False).returncode == 0

    assert not ignored("lib/frugal/new.py")
    assert ignored("data/texts/wikipedia.txt")
    assert ignored("reports/index.html")


def test_every_statement_of_the_supported_pythons_agrees() -> None:
    required = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in required] == PYTHONS
    assert (CHECKOUT / ".python-version").read_text().split() == PYTHONS
    tried = next(line for line in (CHECKOUT / "Makefile").read_text().splitlines() if line.startswith("PYTHON ?="))
    assert tried.split()[2:] == ["python3", *(f"python{version}" for version in reversed(PYTHONS))]
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["jobs"]["everything"]["strategy"]["matrix"]["python"] == [PYTHONS[0], PYTHONS[-1]]


def test_the_workflow_is_valid_and_the_tests_that_it_names_exist() -> None:
    check = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
    outcome = subprocess.run([*check, WORKFLOW], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout
    named = [word for word in WORKFLOW.read_text().split() if word.startswith("tests/")]
    assert named
    assert all(any(CHECKOUT.glob(pattern)) for pattern in named)


PYTHON_THAT_ONLY_WRITES_DOWN = f"""#!/bin/bash
echo "$(basename "$0") $*" >>calls
case "$*" in
    "-c import ensurepip"*) exec {sys.executable} "$@" ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"$REFUSED"*) echo "ERROR: no such thing" >&2; exit 1 ;;
    *" uv") cp "$0" .venv/bin/uv ;;
esac
"""


class Machine:
    """A checkout whose Makefile finds only what is put on the path here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands = folder / "commands"
        self.commands.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            (folder / name).write_bytes((CHECKOUT / name).read_bytes())
        for name in ("python3", *(f"python{version}" for version in PYTHONS)):
            self.put(name, "#!/bin/bash\necho 'a shim of another version' >&2; exit 127\n")

    def put(self, name: str, text: str) -> None:
        (self.commands / name).write_text(text)
        (self.commands / name).chmod(0o755)

    def setup(self, refused: str = "nothing", **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.commands}{os.pathsep}{os.environ['PATH']}"
        inherited = {name: os.environ[name] for name in os.environ.keys() - {"PYTHON", "TORCH_ARGS", "MAKEFLAGS"}}
        environment = inherited | {"PATH": path, "REFUSED": refused} | variables
        return subprocess.run(
            ["make", "setup"], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def installations(self) -> list[str]:
        return [line for line in (self.folder / "calls").read_text().splitlines() if "pip install " in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_setup_takes_the_newest_python_that_runs(machine: Machine) -> None:
    machine.put("python3.11", PYTHON_THAT_ONLY_WRITES_DOWN)
    machine.put("python3.12", PYTHON_THAT_ONLY_WRITES_DOWN)
    assert "Python: python3.12\n" in machine.setup().stdout
    assert (machine.folder / ".venv/.ready").exists()


def test_setup_takes_python3_before_all_others_and_the_named_one_before_that(machine: Machine) -> None:
    for name in ("python3", "python3.13", "python3.12"):
        machine.put(name, PYTHON_THAT_ONLY_WRITES_DOWN)
    assert "Python: python3\n" in machine.setup().stdout
    (machine.folder / ".venv/.ready").unlink()
    assert "Python: python3.12\n" in machine.setup(PYTHON="python3.12").stdout


def test_setup_without_a_python_says_what_it_looked_for(machine: Machine) -> None:
    outcome = machine.setup()
    assert outcome.returncode != 0
    assert f"No Python {PYTHONS[0]} to {PYTHONS[-1]} with venv was found as: python3 python3.14" in outcome.stderr
    assert "a shim" not in outcome.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the registry has CPU builds")
def test_setup_tries_the_cpu_build_of_torch_and_goes_on_without_it(machine: Machine) -> None:
    machine.put("python3", PYTHON_THAT_ONLY_WRITES_DOWN)
    outcome = machine.setup(refused="pytorch.org")
    assert outcome.returncode == 0
    assert "The CPU build of torch is not to be had" in outcome.stdout
    assert "ERROR" not in outcome.stderr
    torch, _, rest = machine.installations()
    assert "--no-deps --index-url https://download.pytorch.org/whl/cpu" in torch
    assert rest == "uv pip install --python .venv/bin/python -c constraints.txt -e .[dev]"


@pytest.mark.parametrize("refused", [" uv", "--python .venv"], ids=["uv cannot be had", "uv fails"])
def test_setup_without_uv_is_done_by_pip(machine: Machine, refused: str) -> None:
    machine.put("python3", PYTHON_THAT_ONLY_WRITES_DOWN)
    assert machine.setup(refused).returncode == 0
    assert machine.installations()[-1] == "python -m pip install -c constraints.txt -e .[dev]"


def test_setup_leaves_the_build_of_torch_to_the_registry_where_there_is_a_driver(machine: Machine) -> None:
    machine.put("python3", PYTHON_THAT_ONLY_WRITES_DOWN)
    machine.put("nvidia-smi", "#!/bin/bash\n")
    assert machine.setup().returncode == 0
    assert not any(line.endswith(" torch") for line in machine.installations())


def test_setup_takes_torch_from_where_it_is_told(machine: Machine) -> None:
    machine.put("python3", PYTHON_THAT_ONLY_WRITES_DOWN)
    outcome = machine.setup(TORCH_ARGS="--index-url https://example.org/cu130", refused="example.org")
    assert outcome.returncode != 0
    assert machine.installations()[-1].endswith("--no-deps --index-url https://example.org/cu130 torch")
