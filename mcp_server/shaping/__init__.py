"""From chunks to the text that a model reads: pure, incremental, in constant memory."""
