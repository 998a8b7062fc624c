"""What a process that stays warm has imported: the verbs of its clients, and what they import when
they are called.

None of it starts a thread, opens a file, fills a cache from where it is or who it is, or reads a
variable that is not part of the likeness: a test holds it to that.
"""

from __future__ import annotations

MODULES = (
    "orchestrator.cli.main",
    "orchestrator.cli.commands.configuration.cluster",
    "orchestrator.cli.commands.configuration.workload",
    "orchestrator.cli.commands.jobs.exec",
    "orchestrator.cli.commands.jobs.plan",
    "orchestrator.cli.commands.jobs.run",
    "orchestrator.cli.commands.jobs.sync",
    "orchestrator.cli.commands.machines.probe",
    "orchestrator.cli.commands.runs.compare",
    "orchestrator.cli.commands.runs.existing_runs",
    # Later, of connecting and of the commands that ask each node once.
    "orchestrator.adapters.transport.asyncssh.async_ssh",
    "orchestrator.adapters.transport.broker.attach",
    "orchestrator.adapters.transport.broker.serve",
    "orchestrator.adapters.transport.local_process",
    "orchestrator.adapters.transport.multiplex.multiplex_transport",
    "orchestrator.adapters.transport.openssh.kept_connections",
    "orchestrator.engine.oneshot.fanout",
    "orchestrator.engine.oneshot.interruptible",
    "orchestrator.engine.oneshot.plan_only",
    "orchestrator.engine.oneshot.probe_nodes",
    "orchestrator.engine.oneshot.sync_only",
    "orchestrator.view.tables.gathered",
    "orchestrator.view.tables.probe_tables",
    # Of files that are validated when they are new.
    "orchestrator.adapters.catalog.modules",
    "orchestrator.cli.load_request",
    "orchestrator.parsing.inputs.inventory_file",
    "orchestrator.parsing.inputs.price_file",
    "orchestrator.parsing.inputs.workloads.workload_file",
    # Of a run, its end, and of runs that were.
    "orchestrator.adapters.history.choose_runs",
    "orchestrator.adapters.notify.outbox",
    "orchestrator.adapters.report.publish",
    "orchestrator.adapters.sync.git_head",
    "orchestrator.cli.commands.runs.resume",
    "orchestrator.cli.detach",
    "orchestrator.cli.past_runs",
    "orchestrator.engine.node.hang_inspection",
    "orchestrator.engine.support.diagnose_run",
    "orchestrator.view.result.comparison_text",
    "orchestrator.view.result.result_sections",
    # Libraries that are imported where they are used.
    "click._textwrap",
    "difflib",
    "encodings.ascii",
    "getpass",
    "pydantic.plugin._loader",
    "encodings.idna",
    "encodings.unicode_escape",
    "unicodedata",
)
