"""Networks of machines: links, addresses, and what a stranger on them sees."""
