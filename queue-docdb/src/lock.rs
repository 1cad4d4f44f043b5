//! Std mutexes, locked for a short read or change, never across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A panic of another thread changes nothing: no lock is held where code may panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
