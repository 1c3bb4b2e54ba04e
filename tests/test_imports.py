"""The floors: imports go down only, and nothing is loaded that was not asked for."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import asok_trace

PACKAGE = Path(asok_trace.__file__).parent

# Bottom to top; what stands on one line is one floor.
FLOORS = [
    {"core"},
    {"frameworks", "detect"},
    {"stamp", "keep"},
    {"gateway", "propagate"},
    {"config", "assemble", "callables", "providers"},
    {"tools"},
    {"__main__"},
]

CORE = {"core"}
FINDINGS = CORE | {
    "core.errors",
    "core.finding",
    "core.findings",
    "core.telling",
    "core.ignoring",
    "core.hooks",
    "core.names",
    "core.records",
    "core.scope",
    "core.settings",
    "core.text",
}
LOOKUP = CORE | {
    "core.errors",
    "core.names",
    "core.scope",
    "core.text",
    "frameworks",
    "frameworks.base",
    "frameworks.lookup",
}
ORPHANS = (
    FINDINGS
    | LOOKUP - {"frameworks", "frameworks.base", "frameworks.lookup"}
    | {"core.callsite", "detect", "detect.origin", "detect.orphans", "detect.remedy"}
)
LEAKS = ORPHANS | {"detect.leaks"}
EXPLAIN = LEAKS | {"detect.cause", "detect.explain", "frameworks", "frameworks.base"}
STDLIB = LOOKUP | ORPHANS | {"stamp", "stamp.events", "stamp.stdlib"}
STRUCTLOG = STDLIB | {"stamp.structlog", "stamp.tail"}
SPANS = LOOKUP | LEAKS | {"stamp", "stamp.marks", "stamp.spans"}
RING = FINDINGS | {"keep", "keep.ring"}
UNIT = EXPLAIN | {"core.ids", "frameworks.otel", "gateway", "gateway.unit"}
WORK = (
    LOOKUP | EXPLAIN | {"frameworks.otel", "propagate", "propagate.work", "stamp", "stamp.tracing"}
)
STREAMS = EXPLAIN | {"propagate", "propagate.steps", "propagate.streams"}
WRAP = WORK | STREAMS | {"core.fork", "propagate.wrap"}
THREADS = WRAP | {"propagate.leftover", "propagate.threads"}
CARRIER = WORK | {"core.ids", "propagate.carrier"}
ASSEMBLE = (
    STDLIB
    | THREADS
    | CARRIER
    | UNIT - {"gateway.unit"}
    | {
        "assemble",
        "callables",
        "config",
        "detect.retained",
        "frameworks.asgi_scope",
        "frameworks.environ",
        "frameworks.live",
        "frameworks.plain",
        "gateway.asgi",
        "gateway.dialogue",
        "gateway.exchange",
        "gateway.gate",
        "gateway.judge",
        "gateway.message",
        "gateway.notes",
        "gateway.wsgi",
        "propagate.elsewhere",
        "propagate.jobs",
        "propagate.mirrored",
        "stamp.access",
    }
)
OPENTELEMETRY = {"opentelemetry", "typing_extensions"}

# Public name -> our modules that touching it loads, and the others' packages.
LOADS: dict[str, tuple[set[str], set[str]]] = {
    "ConfigError": (CORE | {"core.errors", "core.names"}, set()),
    "ContextExecutor": (WRAP | {"propagate.executors"}, set()),
    "Finding": (CORE | {"core.finding"}, set()),
    "Handle": (CORE | {"core.hooks"}, set()),
    "LeakWarning": (CORE | {"core.errors", "core.names"}, set()),
    "OrphanWarning": (CORE | {"core.errors", "core.names"}, set()),
    "RequestFilter": (STDLIB, set()),
    "Scope": (CORE | {"core.errors", "core.names", "core.scope", "core.text"}, set()),
    "SpanStamper": (SPANS, OPENTELEMETRY),
    "StampingSampler": (SPANS, OPENTELEMETRY),
    "assert_clean": (FINDINGS, set()),
    "bind": (LOOKUP, set()),
    "current": (LOOKUP, set()),
    "detach": (WRAP, set()),
    "findings": (FINDINGS, set()),
    "from_carrier": (CARRIER, set()),
    "ignore": (
        CORE | {"core.hooks", "core.ignoring", "core.names", "core.settings"},
        set(),
    ),
    "inject": (STRUCTLOG, {"structlog"}),
    "instrument": (ASSEMBLE, set()),
    "on_finding": (FINDINGS - {"core.findings", "core.ignoring", "core.settings"}, set()),
    "propagate_threads": (THREADS, set()),
    "report": (RING, OPENTELEMETRY),
    "scope": (UNIT, set()),
    "setup": (ASSEMBLE, set()),  # and the rest when it is called
    "stamp_logging": (STDLIB, set()),
    "to_carrier": (CARRIER, set()),
    "wrap": (WRAP, set()),
    "wrap_stream": (STREAMS, set()),
}


def loaded_by(code: str) -> set[str]:
    """The modules outside the standard library that ``code`` loads in a fresh interpreter."""
    program = f"""
import json, sys
before = set(sys.modules)
{code}
own = {{n for n in set(sys.modules) - before if n.partition(".")[0] not in sys.stdlib_module_names}}
print(json.dumps(sorted(own)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_nothing_else() -> None:
    """``import asok_trace`` loads the package's own __init__ and nothing outside the stdlib."""
    assert loaded_by("import asok_trace") == {"asok_trace"}


@pytest.mark.parametrize("name", sorted(LOADS))
def test_touching_a_name_loads_only_what_it_needs(name: str) -> None:
    """Each public name loads exactly the modules listed for it."""
    ours, others = LOADS[name]
    loaded = loaded_by(f"import asok_trace; asok_trace.{name}")
    # structlog looks for greenlet, and takes it if it is there.
    packages = {module.partition(".")[0] for module in loaded} - {"greenlet"}
    assert {m.removeprefix("asok_trace.") for m in loaded if m.startswith("asok_trace.")} == ours
    assert packages == {"asok_trace"} | others


def test_every_public_name_is_listed_and_loads() -> None:
    """``__all__``, the table above and the documented names are the same."""
    assert set(asok_trace.__all__) == set(LOADS)
    assert all(getattr(asok_trace, name) for name in asok_trace.__all__)
    assert set(asok_trace.__all__) <= set(dir(asok_trace))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as any module's would, for hasattr and for from-imports."""
    assert not hasattr(asok_trace, "no_such_name")


def imports_of(path: Path) -> set[str]:
    """The modules that the file imports, absolute names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str | None:
    """The folder or module of the package that ``module`` stands in."""
    parts = module.split(".")
    return parts[1] if parts[0] == "asok_trace" and len(parts) > 1 else None


def floor_of(part: str) -> int:
    return next(level for level, parts in enumerate(FLOORS) if part in parts)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_down_only(path: Path) -> None:
    """A module imports its own folder and lower floors, never upwards or across."""
    relative = path.relative_to(PACKAGE)
    if relative == Path("__init__.py"):
        return  # the map of the house; that it imports nothing has its own test
    here = relative.parts[0].removesuffix(".py")
    parts = {part for part in map(part_of, imports_of(path)) if part is not None}
    for part in parts - {here}:
        # assemble puts together what the others on its floor parse and make.
        beside = here == "assemble" and part in ("callables", "config", "providers")
        allowed = floor_of(part) < floor_of(here) or beside
        assert allowed, f"{relative} imports {part}, which is not below {here}"


def test_core_imports_the_standard_library_alone() -> None:
    """Nothing under core/ needs a package that could be missing."""
    for path in (PACKAGE / "core").rglob("*.py"):
        roots = {module.partition(".")[0] for module in imports_of(path)}
        assert roots - {"asok_trace"} <= sys.stdlib_module_names, path


def test_no_adapter_imports_its_framework() -> None:
    """A framework that is not loaded has no request: nothing here may load one."""
    for path in PACKAGE.rglob("*.py"):
        roots = {module.partition(".")[0] for module in imports_of(path)}
        assert not roots & {"asok", "flask", "quart", "werkzeug"}, path
