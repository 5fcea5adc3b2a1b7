//! Sliding windows of outcomes: constant memory, lock-free, and they really slide.
