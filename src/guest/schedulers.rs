//! What the XML itself says of the guest's threads: how many there are for input and output, and which the kernel is to
//! schedule in a way of its own (`<vcpusched>` and its siblings).

use super::xml::Element;

/// Which threads libvirt has the kernel schedule in a way of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XmlSchedulers {
    /// `<vcpusched>`: some of the virtual CPUs at least.
    pub vcpus: bool,
    /// `<iothreadsched>`: some of the threads for input and output at least.
    pub io: bool,
    /// `<emulatorsched>`.
    pub emulator: bool,
}

/// Reads `<cputune>`.
pub(super) fn schedulers(domain: &Element<'_>) -> XmlSchedulers {
    let has = |name: &str| domain.find(&format!("cputune/{name}")).is_some();
    XmlSchedulers { vcpus: has("vcpusched"), io: has("iothreadsched"), emulator: has("emulatorsched") }
}

#[cfg(test)]
mod tests {
    use crate::guest::XmlSchedulers;
    use crate::guest::testing::guest;

    #[test]
    fn elements_of_other_places_do_not_count() {
        assert_eq!(guest("<vcpusched vcpus='0'/>").schedulers, XmlSchedulers::default());
        let both =
            guest("<cputune><vcpusched vcpus='0' scheduler='fifo' priority='1'/><emulatorsched/></cputune>");
        assert_eq!(both.schedulers, XmlSchedulers { vcpus: true, io: false, emulator: true });
        assert!(guest("<cputune><iothreadsched iothreads='1' scheduler='batch'/></cputune>").schedulers.io);
    }
}
