"""pyproject.toml is the truth about the environment; everything else that names a version agrees with it."""

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
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
CONDA = yaml.safe_load((CHECKOUT / "environment.yml").read_text())["dependencies"]
PYPI_NAME = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}  # where conda-forge calls it otherwise


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_each_requirement_has_a_tested_version_in_its_range(requirement: Requirement) -> None:
    assert Version(CONSTRAINTS[canonicalize_name(requirement.name)]) in requirement.specifier


def test_constraints_are_bare_exact_versions() -> None:
    for name, version in CONSTRAINTS.items():
        assert str(Version(version)) == version.strip()
        assert Version(version).local is None, f"{name} names a local build, which a registry does not have"


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
        assert Version(str(spec.version).strip("=*.")) in Requirement(f"python{PROJECT['requires-python']}").specifier
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
