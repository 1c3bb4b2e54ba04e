"""The first customers; `asok seed` runs this."""

from src.models.user import User


def run() -> None:
    User.create_table()
    for name in ("alice", "bob"):
        # Trusted, because Asok keeps passwords out of what a form may set.
        User.create(_trust=True, name=name, password=f"{name}'s password")
