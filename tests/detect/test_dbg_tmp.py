import collections, time, gc
from tests.detect.test_retained import *
from asok_trace.detect import holders
def test_dbg(monkeypatch):
    app, ask = flask()
    def fails(request): raise LookupError
    orig = holders._Search.forget
    def forget(self):
        c = collections.Counter(type(o).__name__ for o in self._objects.values())
        print("EXPLORED", len(self._objects), c.most_common(25))
        # levels
        def depth(m):
            d=0
            while m in self._holds: m=self._holds[m]; d+=1
            return d
        n=0
        for m,o in list(self._objects.items())[:40]:
            print(depth(m), type(o).__module__, type(o).__name__, str(getattr(o,'f_code',''))[:90])
        orig(self)
    monkeypatch.setattr(holders._Search, "forget", forget)
    with asok_trace.instrument(app, level="strict"):
        ask(fails)
        monkeypatch.setattr(retained, "holder", functools.partial(holder, seconds=2))
        print("FOUND", [f.message for f in found_after(6)])
