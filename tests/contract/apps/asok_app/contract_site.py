"""The application itself, before anybody instruments it."""

import os

from asok import Asok


def make_app():
    """Return the application, with its users in place."""
    root = os.path.dirname(os.path.abspath(__file__))
    # Above 5 MB asok streams a file instead of reading it.
    with open(os.path.join(root, "src/partials/uploads/large.bin"), "wb") as file:
        file.truncate(5 * 1024 * 1024 + 1)
    app = Asok(root)
    app.config.update(
        CORS_ORIGINS="https://elsewhere.example",  # OPTIONS is answered only with it
        MAX_CONTENT_LENGTH=1000,
        RATE_LIMIT=False,  # of 100 requests a minute
    )
    model = app.models[0]
    model.create_table()
    for number in range(1, 6):
        if model.find(id=number) is None:
            model.create(name=f"user{number}")
    return app
