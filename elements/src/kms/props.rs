//! Property names to numbers, looked up once; and lists of assignments that an atomic commit takes.
//!
//! KMS objects (connectors, CRTCs, planes) are changed by assigning to their properties. A property's number is only
//! known to the running kernel; its name is the interface (kernel doc: `gpu/drm-kms.rst`, "KMS Properties").

use std::io;

use drm::control::property::ValueType;
use drm::control::{Device as _, ResourceHandle, property};

use super::device::{Card, DeviceError};

/// A property of some object type, by the kernel's number. Never one whose value is an address (see [`OutFencePtr`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PropId(u32);

impl PropId {
    pub(super) fn is(self, handle: property::Handle) -> bool {
        self.0 == u32::from(handle)
    }
}

/// A property whose value is the address that the kernel writes a sync_file to; only [`super::sys::atomic`] sets it.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutFencePtr {
    pub(super) object: u32,
    pub(super) id: u32,
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    id: u32,
    value: u64,
    /// Names of values, where those are all there are.
    choices: Vec<(String, u64)>,
}

/// The properties of one object, with their values at the time of the query.
#[derive(Debug, Clone)]
pub(super) struct Props {
    object: u32,
    entries: Vec<Entry>,
}

impl Props {
    /// Asks the kernel for every property of `object`. A few ioctls a property: for set-up, not for frames.
    pub(super) fn query<H: ResourceHandle>(card: &Card, object: H) -> io::Result<Props> {
        let mut entries = Vec::new();
        for (&handle, &value) in &card.get_properties(object)? {
            let info = card.get_property(handle)?;
            let choices = match info.value_type() {
                ValueType::Enum(known) => {
                    let named = known.values().1.iter();
                    named.map(|choice| (choice.name().to_string_lossy().into_owned(), choice.value())).collect()
                }
                _ => Vec::new(),
            };
            entries.push(Entry { name: info.name().to_string_lossy().into_owned(), id: handle.into(), value, choices });
        }
        Ok(Props { object: object.into(), entries })
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// The number of property `name`.
    pub(super) fn find(&self, name: &str) -> Option<PropId> {
        // OUT_FENCE_PTR and WRITEBACK_OUT_FENCE_PTR: an arbitrary number would be an address to the kernel.
        if name.ends_with("_PTR") {
            return None;
        }
        self.entry(name).map(|e| PropId(e.id))
    }

    /// The number of property `name`, which every atomic driver has.
    pub(super) fn id(&self, card: &Card, name: &'static str) -> Result<PropId, DeviceError> {
        self.find(name).ok_or_else(|| DeviceError::MissingProperty {
            path: card.path().to_owned(),
            object: self.object,
            property: name,
        })
    }

    /// The property `name` that takes the address of a fence.
    pub(super) fn out_fence(&self, name: &str) -> Option<OutFencePtr> {
        let entry = self.entry(name).filter(|e| e.name.ends_with("_PTR"))?;
        Some(OutFencePtr { object: self.object, id: entry.id })
    }

    /// Values of property `name` by their names; empty where it is not there, or takes others.
    pub(super) fn choices(&self, name: &str) -> &[(String, u64)] {
        self.entry(name).map_or(&[], |e| &e.choices)
    }

    /// The value of property `name` when it was asked for.
    pub(super) fn value(&self, name: &str) -> Option<u64> {
        self.entry(name).map(|e| e.value)
    }
}

/// What one atomic commit is to change: for each object, properties and values, in the four arrays that
/// `DRM_IOCTL_MODE_ATOMIC` takes. Cleared and filled again for each frame, it allocates only when it grows.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    pub(super) objects: Vec<u32>,
    pub(super) counts: Vec<u32>,
    pub(super) properties: Vec<u32>,
    pub(super) values: Vec<u64>,
}

impl Assignments {
    /// Room for what a commit of a frame on each of so many planes takes, so that no frame allocates.
    pub(super) fn for_frames(planes: usize) -> Assignments {
        // A plane's frame, fence and two words on its colours; and the writeback connector.
        let (objects, properties) = (planes + 2, planes * 4 + 4);
        Assignments {
            objects: Vec::with_capacity(objects),
            counts: Vec::with_capacity(objects),
            properties: Vec::with_capacity(properties),
            values: Vec::with_capacity(properties),
        }
    }

    pub(super) fn clear(&mut self) {
        self.objects.clear();
        self.counts.clear();
        self.properties.clear();
        self.values.clear();
    }

    /// Assigns `value` to a property of `object`.
    pub(super) fn set(&mut self, object: u32, property: PropId, value: u64) {
        self.set_raw(object, property.0, value);
    }

    pub(super) fn set_raw(&mut self, object: u32, property: u32, value: u64) {
        match (self.objects.last(), self.counts.last_mut()) {
            (Some(&last), Some(count)) if last == object => *count += 1,
            _ => {
                self.objects.push(object);
                self.counts.push(1);
            }
        }
        self.properties.push(property);
        self.values.push(value);
    }

    /// Takes the last assignment back.
    pub(super) fn pop_raw(&mut self) {
        self.properties.pop();
        self.values.pop();
        match self.counts.last_mut() {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.counts.pop();
                self.objects.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_to_one_object_are_grouped() {
        let mut a = Assignments::default();
        a.set(7, PropId(1), 10);
        a.set(7, PropId(2), 20);
        a.set(9, PropId(1), 30);
        assert_eq!((a.objects, a.counts), (vec![7, 9], vec![2, 1]));
        assert_eq!((a.properties, a.values), (vec![1, 2, 1], vec![10, 20, 30]));
    }

    #[test]
    fn taking_the_last_back_removes_an_empty_object() {
        let mut a = Assignments::default();
        a.set(7, PropId(1), 10);
        a.set_raw(9, 5, 30);
        a.pop_raw();
        assert_eq!((a.objects, a.counts, a.properties, a.values), (vec![7], vec![1], vec![1], vec![10]));
    }

    #[test]
    fn an_address_property_cannot_be_assigned_a_number() {
        let entries = vec![Entry { name: "WRITEBACK_OUT_FENCE_PTR".to_owned(), id: 3, value: 0, choices: vec![] }];
        let props = Props { object: 1, entries };
        assert!(props.find("WRITEBACK_OUT_FENCE_PTR").is_none());
        assert!(props.out_fence("WRITEBACK_OUT_FENCE_PTR").is_some());
    }
}
