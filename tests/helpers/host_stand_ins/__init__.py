"""Stand-ins of other people's pipelines, written from the architecture facts: the call chain, not the quality."""
