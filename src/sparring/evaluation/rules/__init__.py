"""How harnesses read answers and add them up: one file a harness, each rule with its source."""
