"""From a file that may be a picture to pixels that can be trained on."""
