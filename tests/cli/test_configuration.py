"""`cluster`, `workload`, `completion`, and which file a name means."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.adapters.catalog.project import open_script
from orchestrator.cli.main import VERBS, main
from orchestrator.cli.output import print_table
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.inventory import PythonKind, Role
from orchestrator.parsing.inputs.inventory_file import load_cluster
from orchestrator.parsing.inputs.json_schema import cluster_schema, suite_schema, workload_schema
from tests.architecture.source import ROOT

BUNDLED = ["b200x8", "example", "jw3", "local", "nebius1x8", "nebius2x8"]
WORKLOAD = (
    "name: w\nsummary: mine\nentry: w.py\nparameters: {n: {type: int, default: 3, unit: s}}\n"
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder to work in, and an empty home."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    return folder


def output(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def records(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output([*words, "--json"], capsys).splitlines()]


def write_cluster(path: Path, summary: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"name: {path.stem}\nsummary: {summary}\nnodes: [n]\n")


def test_bundled_clusters_are_listed_and_valid(capsys: pytest.CaptureFixture[str]) -> None:
    """Each loads, has a summary, and its figures name their source."""
    listed = records(["cluster", "list"], capsys)

    assert [row["name"] for row in listed] == BUNDLED
    assert all(row["error"] is None and row["summary"] for row in listed)
    for row in listed:
        cluster = load_cluster(Path(row["path"]).read_text(), row["path"])
        assert cluster.name == row["name"]
        assert all(expectation.source for expectation in cluster.expectations)


def test_bundled_clusters_name_aliases_not_addresses() -> None:
    """An ssh_config decides what they reach."""
    for path in (*(ROOT / "clusters").glob("*.yaml"), *(ROOT / "suites").glob("*.yaml")):
        assert not re.search(r"\d+\.\d+\.\d+\.\d+", path.read_text()), path


def test_the_local_cluster_needs_nothing() -> None:
    """Two nodes on this machine, with the workload's own Python environment."""
    cluster = Catalog.from_environment({}).cluster("local")

    assert [node.name for node in cluster.workers] == ["local1", "local2"]
    assert {node.transport.value for node in cluster.nodes} == {"local"}
    assert {node.python.kind for node in cluster.nodes} == {PythonKind.WORKLOAD}


def test_the_coordinator_of_jw3_runs_no_rank() -> None:
    """jw1 has no GPU; jw2 and jw3 do the work."""
    cluster = Catalog.from_environment({}).cluster("jw3")

    assert cluster.node("jw1").role is Role.COORDINATOR
    assert [node.name for node in cluster.workers] == ["jw2", "jw3"]


def test_the_example_shows_every_field() -> None:
    """A field of the schema that the example lacks would stay unknown."""
    text = (ROOT / "clusters" / "example.yaml").read_text()
    schema = cluster_schema()
    shapes = [schema, *schema["$defs"].values()]
    fields = {name for shape in shapes for name in shape.get("properties", {})}

    assert {name for name in fields if not re.search(rf"\b{name}:", text)} == set()


@pytest.mark.parametrize(
    "name,schema",
    [("cluster", cluster_schema()), ("workload", workload_schema()), ("suite", suite_schema())],
)
def test_the_published_schemas_are_current(
    name: str, schema: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/schema is what `orchestrate NAME schema` prints."""
    printed = json.loads(output([name, "schema"], capsys))

    assert printed == schema
    assert json.loads((ROOT / "docs" / "schema" / f"{name}.json").read_text()) == schema


def test_bundled_files_point_editors_to_the_schema() -> None:
    """The first line of each inventory and suite leads to the published schema."""
    for path in (ROOT / "clusters").glob("*.yaml"):
        pointer = path.read_text().splitlines()[0].partition("$schema=")[2]
        assert (path.parent / pointer).is_file(), path


def test_a_name_means_the_nearest_file(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Project, then home, then bundled; a path means itself."""
    write_cluster(tmp_path / "home" / "clusters" / "jw3.yaml", "of home")
    assert "jw3: of home" in output(["cluster", "show", "jw3"], capsys)

    write_cluster(project / "clusters" / "jw3.yaml", "of project")
    assert "jw3: of project" in output(["cluster", "show", "jw3"], capsys)

    write_cluster(project / "jw3.yml", "of path")
    assert "jw3: of path" in output(["cluster", "show", "jw3.yml"], capsys)

    origins = {row["name"]: row["origin"] for row in records(["cluster", "list"], capsys)}
    assert (origins["jw3"], origins["local"]) == ("project", "bundled")


def test_a_broken_file_does_not_hide_the_others(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is listed with its error."""
    (project / "clusters").mkdir()
    (project / "clusters" / "bad.yaml").write_text("name: [")
    listed = {row["name"]: row for row in records(["cluster", "list"], capsys)}

    assert "clusters/bad.yaml:1:7" in listed["bad"]["error"]
    assert listed["local"]["error"] is None
    assert "bad" in output(["cluster", "list"], capsys)


def test_showing_a_selection(capsys: pytest.CaptureFixture[str]) -> None:
    """`--nodes` shows what a run with it would use."""
    (record,) = records(["cluster", "show", "nebius2x8", "--nodes", "nebius-1:0-3"], capsys)

    assert [node["name"] for node in record["nodes"]] == ["nebius-1"]
    assert record["nodes"][0]["gpus"]["indices"] == [0, 1, 2, 3]
    shown = output(["cluster", "show", "nebius2x8", "--nodes", "nebius-1:0-3"], capsys)
    assert "8 H100 only 0-3" in shown


def test_alike_nodes_are_shown_in_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    """Hundreds of nodes stay readable; the table is plain text when not on a terminal."""
    shown = output(["cluster", "show", "example"], capsys)

    assert re.search(r"^gpu\[01-02\] +worker +asyncssh ubuntu@NAME:22 via", shown, re.MULTILINE)
    assert shown.isascii()


def test_secrets_are_not_read_for_showing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither their values nor their absence matter to `show` and `validate`."""
    monkeypatch.setenv("HF_TOKEN", "hush-hush")
    (record,) = records(["cluster", "show", "example"], capsys)
    assert record["nodes"][0]["env"]["HF_TOKEN"] == "***"

    monkeypatch.delenv("HF_TOKEN")
    assert "valid" in output(["cluster", "validate", "example"], capsys)
    with pytest.raises(UsageError, match="HF_TOKEN is not set"):
        Catalog.from_environment({}).cluster("example")


def test_importing_prints_an_inventory(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """stdout is the inventory, stderr what was chosen and not taken; it can be used at once."""
    (project / "hosts").write_text("a slots=2\nb slots=2\nc slots=2 odd\n")
    command = ["cluster", "import", "hostfile", "hosts", "--name", "mine"]
    assert main(command) == 2
    assert "--skip-unknown" in capsys.readouterr().err
    assert main([*command, "--skip-unknown"]) == 0
    out, err = capsys.readouterr()
    (project / "mine.yaml").write_text(out)

    warning, note = err.splitlines()
    assert warning.startswith("warning: hosts:3: 'c slots=2 odd': ")
    assert warning.endswith("; left out")
    assert note == (
        "note: hosts: read as a hostfile of Open MPI (slots=N); --dialect names another tool"
    )
    assert "nodes: 2, workers: 2" in output(["cluster", "validate", "mine.yaml"], capsys)


def test_a_dialect_belongs_to_a_hostfile(capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere it is an error, with the command that has it."""
    assert main(["cluster", "import", "slurm", "x", "--dialect", "mpich"]) == 2
    assert "import hostfile x --dialect mpich" in capsys.readouterr().err


def test_importing_reads_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sinfo | orchestrate cluster import slurm -`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"gpu[01-04]\n")))

    assert 'name: "gpu[01-04]"' in output(["cluster", "import", "slurm", "-"], capsys)


def test_importing_follows_includes(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Relative patterns start at ~/.ssh, as in OpenSSH; another file is named in the defaults."""
    monkeypatch.setenv("HOME", str(project))
    (project / ".ssh" / "d").mkdir(parents=True)
    (project / ".ssh" / "config").write_text("Include d/*.conf\nHost last\n")
    (project / ".ssh" / "d" / "x.conf").write_text("Host first\n")
    usual = output(["cluster", "import", "ssh-config", "~/.ssh/config"], capsys)
    other = output(["cluster", "import", "ssh-config", ".ssh/d/x.conf"], capsys)

    assert [n.name for n in load_cluster(usual, "x").nodes] == ["first", "last"]
    assert "ssh_config" not in usual
    assert f'ssh_config: "{project}/.ssh/d/x.conf"' in other


def write_workload(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "workload.yaml").write_text(WORKLOAD)
    (folder / "w.py").write_text("print()\n")


def test_a_new_workload_is_found_without_registration(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with a workload.yaml is enough, by name or by path."""
    write_workload(project / "workloads" / "w")

    (row,) = [row for row in records(["workload", "list"], capsys) if row["name"] == "w"]
    assert (row["origin"], row["summary"]) == ("project", "mine")
    shown = output(["workload", "show", "w"], capsys)
    assert re.search(r"^n +int \(s\) +3$", shown, re.MULTILINE)
    (record,) = records(["workload", "show", "./workloads/w"], capsys)
    assert record["folder"] == str(project / "workloads" / "w")
    assert record["parameters"]["n"]["place"] == "workloads/w/workload.yaml:4:14"


@pytest.mark.parametrize(
    "given,said",
    [
        (
            ["micro_batch=auto", "global_batch=0"],
            "micro_batch=auto (--set) does not go with global_batch=0 (--set)",
        ),
        (
            ["preset=qwen2-7b", "micro_batch=auto"],
            "micro_batch=auto (--set) does not go with global_batch=0 (preset qwen2-7b)",
        ),
        (
            ["fp8=true", "engine=plain"],
            "fp8=true (--set) does not go with engine=plain (--set)",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_parameters_that_contradict_each_other_are_found_before_any_contact(
    verb: str, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, not 4: no node of this cluster exists. No run is begun."""
    words = [verb, "--cluster", "nebius2x8", "--workload", "finetune"]

    assert main([*words, *(word for setting in given for word in ("--set", setting))]) == 2
    error = capsys.readouterr().err
    assert f"workload finetune: {said}" in error
    assert re.search(r"^  why: .+workload\.yaml:\d+:\d+\)$", error, re.MULTILINE)
    assert re.search(r"^  next: set ", error, re.MULTILINE)
    assert records(["ps"], capsys) == []


def test_rules_of_a_workload_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(["workload", "show", "finetune"], capsys)
    assert re.search(r"^micro_batch=auto +global_batch >= 1 +the rows", shown, re.MULTILINE)
    assert re.search(r"^shard=on +engine=auto\|fused and lora_dropout=0 and ", shown, re.MULTILINE)

    shown = output(["workload", "show", "acceptance"], capsys)
    assert re.search(r"^always +max_bytes >= min_bytes ", shown, re.MULTILINE)
    (record,) = records(["workload", "show", "acceptance"], capsys)
    assert record["rules"][0]["require"][0]["min"] == "min_bytes"


def test_a_workload_without_its_script_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The entry is checked before anything is contacted."""
    write_workload(project / "workloads" / "w")
    (project / "workloads" / "w" / "w.py").unlink()

    assert main(["workload", "show", "w"]) == 2
    assert "'w.py' does not exist in workloads/w" in capsys.readouterr().err


def test_the_project_of_a_script_is_its_git_root(project: Path) -> None:
    """Else the working directory; --workdir overrides."""
    (project / "src").mkdir()
    (project / "src" / "train.py").write_text("")
    loose = open_script(["src/train.py", "--lr", "1"], cwd=project)
    assert (loose.workload.folder, loose.workload.entry) == (str(project), "src/train.py")
    narrow = open_script(["src/train.py"], cwd=project, workdir=Path("src"))
    assert (narrow.workload.folder, narrow.workload.entry) == (str(project / "src"), "train.py")

    (project / ".git").mkdir()
    inside = open_script(["train.py", "--lr", "1"], cwd=project / "src")
    assert (inside.workload.folder, inside.workload.entry) == (str(project), "src/train.py")
    assert inside.argv() == ("--lr", "1")


def test_packages_in_src_are_found_as_an_editable_install_finds_them(project: Path) -> None:
    package = project / "src/mypkg"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    (package / "mod.py").touch()
    (project / "tool.py").touch()
    calls = (["-m", "mypkg.mod"], ["tool.py"])

    before = [open_script(words, cwd=project).workload.import_root for words in calls]
    (project / "pyproject.toml").touch()
    after = [open_script(words, cwd=project).workload.import_root for words in calls]

    assert before == ["", ""]
    assert after == ["src", "src"]


def test_a_script_whose_first_line_ends_as_in_windows_is_refused(project: Path) -> None:
    """Every node would say that it is not there."""
    tool = project / "win.sh"
    tool.write_bytes(b"#!/bin/bash\r\necho hi\r\n")
    tool.chmod(0o755)

    with pytest.raises(UsageError, match="ends as in Windows") as refused:
        open_script(["./win.sh"], cwd=project)
    assert r"sed -i 's/\r$//' win.sh" in str(refused.value).replace("./", "")
    told = open_script(["bash", "win.sh"], cwd=project).workload.warnings
    assert "lines end as in Windows" in told[0]


def test_commands_and_executables_are_programs(project: Path) -> None:
    """A relative file must be executable; a bare or absolute name is the nodes' business."""
    tool = project / "tool.sh"
    tool.write_text("#!/bin/sh\n")
    with pytest.raises(UsageError, match="not executable"):
        open_script(["./tool.sh"], cwd=project)

    tool.chmod(0o755)
    assert open_script(["./tool.sh", "x"], cwd=project).workload.program == ("./tool.sh", "x")
    assert open_script(["hostname"], cwd=project).workload.program == ("hostname",)
    assert open_script(["/bin/date"], cwd=project).workload.program == ("/bin/date",)


def test_a_module_of_the_project_is_run_from_where_it_lies(project: Path) -> None:
    """Imported from the working directory, else the project's root; others are the nodes'."""
    (project / ".git").mkdir()
    for package in ("top", "src/pkg"):
        (project / package).mkdir(parents=True)
        (project / package / "__init__.py").write_text("")
        (project / package / "mod.py").write_text("")
    here = project / "src"
    jobs = {
        module: open_script(["python", "-O", "-m", module, "--lr", "1"], cwd=here).workload
        for module in ("pkg.mod", "top.mod", "vllm.entrypoints.api_server")
    }
    assert {module: job.import_root for module, job in jobs.items()} == {
        "pkg.mod": "src",
        "top.mod": "",
        "vllm.entrypoints.api_server": "",
    }
    assert jobs["pkg.mod"].python == ("-O", "-m", "pkg.mod")
    assert {(job.entry, job.program) for job in jobs.values()} == {("", ())}


@pytest.mark.parametrize(
    "words,what,remedy",
    [
        (["-m", "pkg.mdo"], "pkg has no module mdo", "did you mean 'mod'?"),
        (["-m", "pkg"], "the package has no __main__.py", ""),
        (["-m", "pkg/mod.py"], "not the name of a module", "-m pkg.mod"),
        (["./pkg"], "./pkg is a folder", "-m pkg"),
        (["job.sh"], "job.sh is a file here", "./job.sh"),
        (["train.ipynb"], "train.ipynb is a file here", "nbconvert"),
        (["pkg"], "pkg is a folder here", "-m pkg"),
        (["tool"], "tool is a file here", "./tool"),
        (["plain"], "plain is a file here", "python plain"),
        (["python", "trian.py"], "'trian.py' does not exist", "did you mean 'train.py'?"),
        (["torchrun", "train.py"], "torchrun would start a world of its own", "-- train.py"),
    ],
)
def test_what_nodes_could_not_run_is_found_before_any_contact(
    project: Path,
    words: list[str],
    what: str,
    remedy: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 2, not 4: no node of this cluster exists."""
    (project / "pkg").mkdir()
    for name in ("pkg/__init__.py", "pkg/mod.py", "job.sh", "train.ipynb", "train.py", "plain"):
        (project / name).write_text("")
    (project / "tool").touch(0o755)

    for verb in ("run", "plan"):
        assert main([verb, "--cluster", "nebius2x8", "--", *words]) == 2
        error = capsys.readouterr().err
        assert what in error
        assert remedy in error


def test_a_program_may_have_the_name_of_what_lies_here(project: Path) -> None:
    """Of a folder or file of the project, if this machine has the program; or stand elsewhere."""
    (project / "env").mkdir()
    (project / "job.sh").touch(0o755)

    assert open_script(["env"], cwd=project).workload.program == ("env",)
    there = str(project / "job.sh")
    assert open_script([there], cwd=project).workload.program == (there,)


def test_a_python_call_of_a_script_is_the_script(project: Path) -> None:
    """Also one without .py, a folder, and one that only the nodes have."""
    (project / "tool").write_text("")
    (project / "app").mkdir()
    (project / "app/__main__.py").write_text("")
    called = open_script(["python", "-u", "tool", "x"], cwd=project)
    assert (called.workload.entry, called.workload.python) == ("tool", ("-u",))
    assert called.argv() == ("x",)
    assert open_script(["python", "app"], cwd=project).workload.entry == "app"
    (project / "app/__main__.py").unlink()
    with pytest.raises(UsageError, match=r"app is a folder without __main__\.py"):
        open_script(["python", "app"], cwd=project)
    there = open_script(["python", "/opt/app/main.py"], cwd=project).workload
    assert (there.entry, there.python) == ("", ("/opt/app/main.py",))


@pytest.mark.parametrize("words", [["trian.py"], ["./none.sh"], ["/nowhere/x.py"]])
def test_a_script_that_does_not_exist_is_refused(project: Path, words: list[str]) -> None:
    """Before anything is contacted, with the nearest file of that folder."""
    (project / "train.py").write_text("")

    with pytest.raises(UsageError) as caught:
        open_script(words, cwd=project)
    assert "does not exist" in str(caught.value)
    assert words != ["trian.py"] or "did you mean 'train.py'?" in str(caught.value)


def test_a_script_outside_the_workdir_is_refused(project: Path) -> None:
    """It would not travel."""
    (project / "train.py").write_text("")
    (project / "sub").mkdir()

    with pytest.raises(UsageError, match="would not travel"):
        open_script(["train.py"], cwd=project, workdir=Path("sub"))


@pytest.mark.processes
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shell gets its own."""
    assert "_ORCHESTRATE_COMPLETE" in output(["completion", shell], capsys)


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """The table is the help."""
    shown = output(["--help"], capsys)

    assert all(re.search(rf"^  {verb.name} +\S", shown, re.MULTILINE) for verb in VERBS)


def test_tables_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """What came from outside cannot steer the terminal or break a row."""
    print_table(("name",), [["a\x1b[31m\nb"]])

    assert capsys.readouterr().out == "name\na\ufffd[31m b\n"
