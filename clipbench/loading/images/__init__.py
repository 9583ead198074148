"""From a file that may be an image to pixels that can be trained on."""
