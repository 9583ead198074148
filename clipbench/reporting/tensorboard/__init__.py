"""TensorBoard: chart layout, images, HParams and event files, written without torch."""
