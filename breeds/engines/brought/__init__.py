"""Networks that people bring along as ONNX files, alone or in a folder in the layout of model hubs.

`breeds.engines.brought.file` reads a file and says what it takes and gives, `breeds.engines.brought.folder`
what a hub's ``preprocessor_config.json`` says of photos, `breeds.engines.brought.settle` puts both and the
user's options together, and `breeds.engines.brought.convert` makes the network that OpenVINO runs. The files
come from strangers: what is not plainly an image network of bounded size is refused before it is run.
"""
