"""What TensorBoard is told, written without torch."""
