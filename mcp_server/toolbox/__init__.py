"""The toolbox protocol: its server, its clients, and an engine that runs code at a server elsewhere."""
