"""Questions about a model's output: which number, for each image, shall be explained."""
