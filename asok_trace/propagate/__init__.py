"""Floor 4, across: the context goes where the work goes."""
