"""The contract's Flask application: a page for every kind of response, instrumented."""

import contract_logs
from contract_site import make_app

import asok_trace

contract_logs.configure()
contract_logs.say("starting")
contract_logs.start_clock()

app = make_app()
asok_trace.instrument(app)
