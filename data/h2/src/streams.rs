//! The streams of a connection: by place, as their holders know them, and by number, as the peer does.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use crate::limits::MAX_REMEMBERED_RESETS;
use crate::stream::Stream;

/// Memory for more streams than these is given back when there is none.
const KEPT: usize = 4;

/// Streams that are open, or held by somebody.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,
    /// Places of open streams by number.
    open: HashMap<u32, u32, RandomState>,
    /// Streams that we reset: what the peer sent before it knew is not its fault.
    resets: VecDeque<u32>,
    /// Up to this number the peer is not blamed, since what was reset is no longer known exactly.
    forgotten: u32,
}

impl Streams {
    /// Streams there are, open or only held.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Open streams.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> usize {
        let id = stream.id;
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = Some(stream);
                place as usize
            }
            None => {
                self.slots.push(Some(stream));
                self.slots.len() - 1
            }
        };
        if id != 0 {
            self.set_open(id, place);
        }
        place
    }

    /// The peer knows it from now on.
    pub(crate) fn set_open(&mut self, id: u32, place: usize) {
        self.open.insert(id, place as u32);
    }

    /// The peer knows it no more; its holders do. True if it was open.
    pub(crate) fn set_closed(&mut self, id: u32) -> bool {
        self.open.remove(&id).is_some()
    }

    pub(crate) fn remove(&mut self, place: usize) {
        if self.slots[place].take().is_some() {
            self.free.push(place as u32);
        }
        if self.free.len() == self.slots.len() && self.slots.capacity() > KEPT {
            (self.slots, self.free) = (Vec::new(), Vec::new());
            self.open.shrink_to_fit();
        }
    }

    pub(crate) fn find(&self, id: u32) -> Option<usize> {
        self.open.get(&id).map(|&place| place as usize)
    }

    pub(crate) fn get(&mut self, place: usize) -> Option<&mut Stream> {
        self.slots.get_mut(place)?.as_mut()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Stream)> {
        self.slots.iter_mut().enumerate().filter_map(|(place, slot)| Some((place, slot.as_mut()?)))
    }

    /// We have reset it.
    pub(crate) fn remember_reset(&mut self, id: u32) {
        if self.resets.len() == MAX_REMEMBERED_RESETS
            && let Some(oldest) = self.resets.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.resets.push_back(id);
    }

    /// Whether frames on a stream that is gone may be due to our reset of it.
    pub(crate) fn was_reset(&self, id: u32) -> bool {
        id <= self.forgotten || self.resets.contains(&id)
    }
}
