"""Methods for the CPU: one file, one method. numconv.methods lists them."""
