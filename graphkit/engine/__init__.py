"""Model -> TensorRT engine: profiles proven first, the build in a child process, the file checked before it counts."""
