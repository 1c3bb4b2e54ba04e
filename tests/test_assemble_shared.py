"""What `instrument` hooks on Asok's own modules is shared by all applications: it stays until the
last of them is undone, and then everything is as it was.

needs: asok
"""

import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asok import Asok
from asok.background import background
from asok.ws import WebSocketServer

import asok_trace
from asok_trace import assemble, callables
from asok_trace.core.hooks import Handle
from asok_trace.frameworks.asok import FRAMEWORK
from tests.programs import run

SECONDS = 30


@pytest.fixture
def make_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Asok]:
    """Makes empty Asok applications."""
    monkeypatch.delenv("ASOK_QUEUE_BACKEND", raising=False)
    (tmp_path / "src" / "pages").mkdir(parents=True)
    background(str).result(SECONDS)  # asok keeps the pool that it makes for the first
    return lambda: Asok(str(tmp_path))


State = dict[tuple[str, str], Any]


def owners(app: Any) -> Iterator[tuple[str, Any]]:
    """The modules, classes and loggers of Asok that we hook, for applications and workers."""
    names = {entry.owner for entry in [*FRAMEWORK.entries(app), *FRAMEWORK.worker]}
    for name in sorted(filter(None, names)):
        yield name, pkgutil.resolve_name(name)


def state(app: Any) -> State:
    """Every attribute of theirs, as it is held: a static method as such."""
    return {
        (name, attribute): value
        for name, owner in owners(app)
        for attribute, value in vars(owner).items()
    }


def same(one: State, other: State) -> bool:
    """Whether these are the very same objects."""
    return one.keys() == other.keys() and all(one[key] is other[key] for key in one)


def carries() -> bool:
    """Whether a background job has a scope of ours."""
    scope = background(asok_trace.current).result(SECONDS)
    return scope is not None and scope.kind == "job"


def test_everything_is_given_back(make_app: Callable[[], Asok]) -> None:
    """Module functions, methods, loggers and the static method `Mail._do_send`: each is hooked,
    and afterwards the very object it was."""
    app = make_app()
    list(owners(app))  # imported, if they were not
    before = state(app)
    entries = [entry for entry in FRAMEWORK.entries(app) if entry.owner is not None]
    with asok_trace.instrument(app, errors=True):
        hooked = state(app)
        for entry in entries:
            assert entry.owner is not None
            key = (entry.owner, entry.attribute)
            assert hooked[key] is not before.get(key), entry
    assert same(state(app), before)
    assert isinstance(before["asok.mail:Mail", "_do_send"], staticmethod)


def test_a_worker_is_given_back(make_app: Callable[[], Asok]) -> None:
    """The same in `asok worker`, beside an application that goes on."""
    app = make_app()
    list(owners(app))
    before = state(app)
    with asok_trace.instrument(app):
        alone = state(app)
        with assemble.install_worker(FRAMEWORK):
            assert not same(state(app), alone)
        assert same(state(app), alone)
    assert same(state(app), before)


@pytest.mark.parametrize("first", [0, 1], ids=["first come", "last come"])
def test_until_the_last_is_undone(make_app: Callable[[], Asok], first: int) -> None:
    """Whichever of two applications is undone first: the other's jobs keep their scopes."""
    apps = [make_app(), make_app()]
    list(owners(apps[0]))
    before = state(apps[0])
    handles = [asok_trace.instrument(app) for app in apps]
    hooked = state(apps[0])
    handles.pop(first).undo()
    assert same(state(apps[0]), hooked)
    assert carries()
    handles.pop().undo()
    assert same(state(apps[0]), before)
    assert not carries()


def test_who_counts_once(make_app: Callable[[], Asok]) -> None:
    """An application that is instrumented twice, and a handle that is undone twice."""
    one, other = make_app(), make_app()
    list(owners(one))
    before = state(one)
    first = asok_trace.instrument(one)
    assert asok_trace.instrument(one) is first
    second = asok_trace.instrument(other)
    second.undo()
    second.undo()
    assert carries()
    first.undo()
    assert same(state(one), before)


def test_an_application_and_its_websocket_server(make_app: Callable[[], Asok]) -> None:
    """They share nothing that one of them could take from the other."""
    app = make_app()
    server = WebSocketServer(app, port=0)
    before = (state(app), state(server))
    handles: list[Handle] = [asok_trace.instrument(app), asok_trace.instrument(server)]
    handles.pop().undo()
    assert carries()
    handles.pop().undo()
    assert same(state(app), before[0])
    assert same(state(server), before[1])


def test_applications_that_differ_on_cron(make_app: Callable[[], Asok]) -> None:
    """The scheduler is hooked for the one that wants it, as long as it wants it."""
    without, wanting = make_app(), make_app()
    scheduled = pkgutil.resolve_name("asok.scheduler:ScheduledTask")
    before = dict(vars(scheduled))
    first = asok_trace.instrument(without, cron=False)
    assert dict(vars(scheduled)) == before
    second = asok_trace.instrument(wanting)
    assert dict(vars(scheduled)) != before
    second.undo()
    assert dict(vars(scheduled)) == before
    assert carries()
    first.undo()


def test_a_set_up_that_fails_takes_its_share_back(
    make_app: Callable[[], Asok], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that is missing, after some were hooked: nothing stays, of another application
    everything."""
    one, other = make_app(), make_app()
    list(owners(one))
    module = pkgutil.resolve_name("asok.core.asgi")
    with monkeypatch.context() as missing:
        missing.delattr(module, "async_to_sync")
        before = state(one)
        with pytest.raises(AttributeError, match="async_to_sync"):
            asok_trace.instrument(one)
        assert same(state(one), before)
    with asok_trace.instrument(other):
        hooked = state(one)

        def fails(mode: str) -> None:
            raise LookupError(mode)

        monkeypatch.setattr(callables, "propagate_threads", fails)
        with pytest.raises(LookupError):  # after all else
            asok_trace.instrument(one, threads="carry")
        assert same(state(one), hooked)
        assert carries()
    assert not carries()


def test_somebody_elses_wrapper_in_between(make_app: Callable[[], Asok]) -> None:
    """It stays in place; beneath it ours lets everything through."""
    app = make_app()
    module = sys.modules["asok.background"]  # not the package's attribute, which is a function
    original = module._run_local_job_with_retries
    calls: list[str] = []
    handle = asok_trace.instrument(app)
    ours = module._run_local_job_with_retries

    def theirs(*args: Any) -> Any:
        calls.append("theirs")
        return ours(*args)

    module._run_local_job_with_retries = theirs
    try:
        assert carries()
        handle.undo()
        assert module._run_local_job_with_retries is theirs
        assert not carries()
        assert calls == ["theirs"] * 2
    finally:
        module._run_local_job_with_retries = original


RELOADED = """
import logging, pathlib, sys
import asok_trace

def start():
    from asok import Asok
    pathlib.Path({root!r}, "src", "pages").mkdir(parents=True, exist_ok=True)
    app = Asok({root!r})
    logging.getLogger("asok").handlers.clear()
    return app

def carries():
    background = sys.modules["asok.background"].background
    scope = background(asok_trace.current).result(30)
    return scope is not None and scope.kind == "job"

first = start()
handle = asok_trace.instrument(first)
old = sys.modules["asok.background"]
assert carries()

# As `asok dev` does in the child that it serves from.
for name in [name for name in sys.modules if name == "asok" or name.startswith("asok.")]:
    del sys.modules[name]
second = start()
new = sys.modules["asok.background"]
assert new is not old
assert not carries()
again = asok_trace.instrument(second)
assert again is not handle
assert carries()

# The old one's handle takes back what it hooked, and nothing of the new one's.
handle.undo()
assert carries()
assert not hasattr(old, "_asok_trace")
again.undo()
assert not carries()
assert not hasattr(new, "_asok_trace")
print("done")
"""


def test_after_a_reload(tmp_path: Path) -> None:
    """Asok's modules are thrown away and imported anew: the new application's are hooked, each
    handle takes back its own."""
    out = run(
        RELOADED.format(root=str(tmp_path)),
        SECRET_KEY="a-key-for-tests-that-is-long-enough-0123456789",
        ASOK_QUEUE_BACKEND="local",
    )
    assert out.endswith("done\n")
