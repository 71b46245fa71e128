"""What all widgets share: the base class, saved pages, one module out of several, plain HTML."""
