"""The processes of the benchmark, each started where a measure needs it: the provider, ours, and the others."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.load import deployment
from tests.load.environments import DSPY_CLI, FASTAPI
from tests.load.processes import Process, uvicorn
from tests.load.serving import contenders
from tests.load.serving.contenders import Contender
from tests.server import free_port

SETTINGS = "tests.load.serving.settings"
OURS, FASTAPI_ASYNCIFY, CLI, BARE = "ours", "fastapi", "dspy-cli", "bare"
_SAMPLE = "sample.sqlite3"
_CONFIG = """\
app_id: benchmark
models:
  default: bench
  registry:
    bench:
      model: openai/gpt-4o-mini
      model_type: chat
      api_base: {provider}
      api_key: benchmark
      cache: false
"""


@dataclass(slots=True)
class Servers:
    """What runs. `start` begins, `stop` ends."""

    directory: Path
    provider: Process
    processes: dict[str, Process] = field(default_factory=dict)
    """By name; `OURS` and the others are what most measures compare."""
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def address(self) -> str:
        """Of the provider."""
        return f"http://127.0.0.1:{self.provider.port}/v1"

    def start(self, names: Iterable[str]) -> None:
        """Start these and wait until they listen. Starting takes seconds of CPU: all do it at a time."""
        starters = {FASTAPI_ASYNCIFY: self._fastapi, CLI: self._dspy_cli, BARE: self._bare, OURS: self.start_ours}
        started = [starters[name]() for name in starters if name in set(names)]
        for process in started:
            process.wait()

    def renew(self) -> None:
        """New processes in place of those that run, ours on a new database."""
        names = [*self.processes]
        self.stop(*names)
        self.start(names)

    def start_ours(self, name: str = OURS, database: str = "", *options: str) -> Process:
        """Our server, which may not listen yet; on a new database of SQLite, or the one whose address is given."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        environment = deployment.environment_of(SETTINGS, directory, database or self.database(directory))
        return self.add(name, deployment.serve(environment, directory / "log", *options))

    def database(self, directory: Path) -> str:
        """A new database with the tables and the language model: a copy, for making one takes seconds."""
        sample = self.directory / _SAMPLE
        if not sample.exists():
            deployment.deploy(SETTINGS, self.directory, f"sqlite:///{sample}", self.address)
        made = directory / "db.sqlite3"
        for leftover in directory.glob(f"{made.name}-*"):
            # The log of an earlier database: SQLite would play it into the new one.
            leftover.unlink()
        shutil.copy(sample, made)
        return f"sqlite:///{made}"

    def add(self, name: str, process: Process) -> Process:
        """Have a process stopped at the end, and its log shown where something fails."""
        self.processes[name] = process
        self._stack.callback(process.stop)
        return process

    def stop(self, *names: str) -> None:
        """End these, or all."""
        for name in names:
            self.processes.pop(name).stop()
        if not names:
            self._stack.close()

    def ours(self, level: str) -> Contender:
        """Our server, with traces of a level."""
        return contenders.ours(self.processes[OURS], level)

    def fastapi(self) -> Contender:
        """FastAPI and `dspy.asyncify`."""
        return contenders.fastapi(self.processes[FASTAPI_ASYNCIFY])

    def dspy_cli(self) -> Contender:
        """dspy-cli."""
        return contenders.dspy_cli(self.processes[CLI])

    def bare(self) -> Contender:
        """DSPy alone."""
        return contenders.Bare("bare DSPy", self.processes[BARE])

    def _fastapi(self) -> Process:
        application = "tests.load.serving.fastapi_asyncify:app"
        return self.add(
            FASTAPI_ASYNCIFY,
            uvicorn(FASTAPI.python(), application, self.directory / "fastapi.log", self._environment()),
        )

    def _bare(self) -> Process:
        port = free_port()
        command = [sys.executable, "-m", "tests.load.serving.bare", str(port)]
        return self.add(BARE, Process(command, port, self.directory / "bare.log", self._environment()))

    def _dspy_cli(self) -> Process:
        """As `dspy-cli serve --no-reload` serves a project, but without the access log, which the others lack too."""
        project = self.directory / "dspy-cli"
        modules = project / "src" / "bench" / "modules"
        modules.mkdir(parents=True, exist_ok=True)
        for package in (modules, modules.parent):
            (package / "__init__.py").touch()
        (project / "dspy.config.yaml").write_text(_CONFIG.format(provider=self.address))
        shutil.copy(Path(__file__).parent / "modules.py", modules / "programs.py")
        environment = self._environment() | {
            "DSPY_CLI_LOGS_DIR": str(project / "logs"),
            "DSPY_CLI_SYNC_WORKERS": "256",
        }
        application = "dspy_cli.server.runner:create_app_instance"
        log = self.directory / "dspy-cli.log"
        return self.add(CLI, uvicorn(DSPY_CLI.python(), application, log, environment, "--factory", directory=project))

    def _environment(self) -> dict[str, str]:
        return {"SERVING_PROVIDER": self.address, "LITELLM_LOCAL_MODEL_COST_MAP": "true"}


@contextlib.contextmanager
def servers(directory: Path) -> Iterator[Servers]:
    """The provider, started; the others are started by whoever needs them. What they write goes to `directory`."""
    port = free_port()
    command = [sys.executable, "-m", "tests.load.serving.provider", str(port)]
    with Process(command, port, directory / "provider.log", {}) as provider:
        started = Servers(directory, provider)
        try:
            yield started
        finally:
            started.stop()
