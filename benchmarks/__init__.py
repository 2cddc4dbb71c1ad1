"""How fast, and with how much memory: ours against the model's code as it was published. See README.md."""
