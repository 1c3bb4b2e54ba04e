"""Who may log in."""

from asok import Field, Model


class User(Model):
    name = Field.String(unique=True, nullable=False)
    password = Field.Password()
