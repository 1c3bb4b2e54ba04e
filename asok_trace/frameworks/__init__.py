"""Floor 2, who is calling: facts about a framework's current request, no behaviour."""
