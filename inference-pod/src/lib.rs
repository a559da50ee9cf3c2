//! quartermaster-inference-pod
