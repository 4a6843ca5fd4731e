"""vecho, a caching reverse proxy for embeddings. This package holds the program, and no Python interface."""
