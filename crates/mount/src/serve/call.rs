//! A request being served, with the marks that tell a successor how far it got.
//!
//! What the marks mean to a change is in `turn`.

use std::ops::Deref;

use fuse::Request;

use crate::estate::{Doubt, Marks};

/// A request being served.
pub(super) struct Call<'a> {
    request: Request<'a>,
    pub(super) marks: &'a Marks,
    /// What a predecessor may have done of it.
    pub(super) doubt: Option<Doubt>,
}

impl<'a> Call<'a> {
    pub(super) fn new(request: Request<'a>, marks: &'a Marks) -> Call<'a> {
        Call { request, marks, doubt: marks.doubt() }
    }
}

impl<'a> Deref for Call<'a> {
    type Target = Request<'a>;

    fn deref(&self) -> &Request<'a> {
        &self.request
    }
}
