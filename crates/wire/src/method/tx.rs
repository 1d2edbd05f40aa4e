//! Class tx (90): transactions. No method has a field.

use super::{Method, MethodId, id};

/// `tx.select`.
pub const SELECT: MethodId = id(90, 10);

/// `tx.select-ok`.
pub const SELECT_OK: MethodId = id(90, 11);

/// `tx.commit`.
pub const COMMIT: MethodId = id(90, 20);

/// `tx.commit-ok`.
pub const COMMIT_OK: MethodId = id(90, 21);

/// `tx.rollback`.
pub const ROLLBACK: MethodId = id(90, 30);

/// `tx.rollback-ok`.
pub const ROLLBACK_OK: MethodId = id(90, 31);

/// Reads the fields of method `id` of this class; `None` when malformed or not known.
pub(super) fn read(id: MethodId) -> Option<Method<'static>> {
    Some(match id {
        SELECT => Method::TxSelect,
        SELECT_OK => Method::TxSelectOk,
        COMMIT => Method::TxCommit,
        COMMIT_OK => Method::TxCommitOk,
        ROLLBACK => Method::TxRollback,
        ROLLBACK_OK => Method::TxRollbackOk,
        _ => return None,
    })
}
