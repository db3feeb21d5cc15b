"""Networks as ONNX files, alone or in a folder in the layout of model hubs.

`file` reads a file and says what it takes and gives, `folder` what a hub's ``preprocessor_config.json``
says of photos, `settle` puts both together, and `convert` makes the network that OpenVINO runs. The files
come from strangers: what is not plainly an image network of bounded size is refused before it is run.
"""
