from asok import Field, Model


class User(Model):
    name = Field.String()
