//! The two calls of `i2c-dev` that the program makes (`include/uapi/linux/i2c-dev.h`, `include/uapi/linux/i2c.h`).

use std::ffi::c_ulong;
use std::fs::File;
use std::io;
use std::marker::PhantomData;

use rustix::ioctl::{Getter, Opcode, Updater, ioctl};

/// `I2C_FUNCS`: tells what the bus can do.
const FUNCTIONS: Opcode = 0x0705;
/// `I2C_RDWR`: makes messages that belong together.
const READ_WRITE: Opcode = 0x0707;

/// `I2C_FUNC_I2C`: messages of any length.
const PLAIN_MESSAGES: c_ulong = 1;

/// `I2C_M_RD`: the monitor sends, and the buffer is filled.
const READ: u16 = 1;

/// One message (`struct i2c_msg`), with what it sends or fills borrowed. Addresses have seven bits.
#[repr(C)]
pub(super) struct Message<'a> {
    address: u16,
    flags: u16,
    length: u16,
    bytes: *mut u8,
    borrowed: PhantomData<&'a mut [u8]>,
}

/// `struct i2c_rdwr_ioctl_data`.
#[repr(C)]
struct Messages<'a> {
    first: *mut Message<'a>,
    count: u32,
}

impl<'a> Message<'a> {
    /// Sends these bytes.
    ///
    /// # Errors
    /// They are more than a message can have (`InvalidInput`).
    pub(super) fn write(address: u8, bytes: &'a [u8]) -> io::Result<Self> {
        // Nothing is written through this pointer: without the flag the kernel only reads from it.
        Self::new(address, 0, bytes.as_ptr().cast_mut(), bytes.len())
    }

    /// Fills this buffer.
    ///
    /// # Errors
    /// It is longer than a message can be (`InvalidInput`).
    pub(super) fn read(address: u8, buffer: &'a mut [u8]) -> io::Result<Self> {
        Self::new(address, READ, buffer.as_mut_ptr(), buffer.len())
    }

    /// The kernel takes fewer bytes than fit the field: 8192 (`i2cdev_ioctl_rdwr`).
    fn new(address: u8, flags: u16, bytes: *mut u8, length: usize) -> io::Result<Self> {
        let length = u16::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { address: address.into(), flags, length, bytes, borrowed: PhantomData })
    }
}

/// Whether the bus makes messages of any length: one that does not is an SMBus.
///
/// # Errors
/// The file is no bus, or the bus is gone.
#[expect(
    unsafe_code,
    reason = "no crate has the calls of i2c-dev as safe ones but i2c-linux, last changed in 2018"
)]
pub(super) fn makes_plain_messages(bus: &File) -> io::Result<bool> {
    // SAFETY: the call writes one `unsigned long` to where it points, and does nothing else.
    let functions = unsafe { ioctl(bus, Getter::<FUNCTIONS, c_ulong>::new()) }?;
    Ok(functions & PLAIN_MESSAGES != 0)
}

/// Makes messages one after the other, with a repeated start between them: no other program comes in between.
///
/// # Errors
/// No device acknowledges, the file is no bus, or the bus is gone.
#[expect(
    unsafe_code,
    reason = "no crate has the calls of i2c-dev as safe ones but i2c-linux, last changed in 2018"
)]
pub(super) fn transfer(bus: &File, messages: &mut [Message<'_>]) -> io::Result<()> {
    let count = u32::try_from(messages.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut all = Messages { first: messages.as_mut_ptr(), count };
    // SAFETY: both structures have the kernel's layout. What they point to is borrowed by the messages, each as long as
    // the message says, and the kernel writes to the buffers of reads alone, which are borrowed mutably.
    Ok(unsafe { ioctl(bus, Updater::<READ_WRITE, Messages<'_>>::new(&mut all)) }?)
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        let pointer = size_of::<usize>();
        assert_eq!((offset_of!(Message<'_>, flags), offset_of!(Message<'_>, length)), (2, 4));
        assert_eq!((offset_of!(Message<'_>, bytes), size_of::<Message<'_>>()), (8, 8 + pointer));
        assert_eq!((offset_of!(Messages<'_>, count), size_of::<Messages<'_>>()), (pointer, 2 * pointer));
    }

    #[test]
    fn a_message_tells_the_kernel_where_to_read_and_where_to_write() {
        let (bytes, mut buffer) = ([0x51, 0x82, 0x01], [0; 11]);
        let sent = Message::write(0x37, &bytes).unwrap();
        assert_eq!((sent.address, sent.flags, sent.length), (0x37, 0, 3));
        assert_eq!(sent.bytes.cast_const(), bytes.as_ptr());
        let place = buffer.as_mut_ptr();
        let filled = Message::read(0x50, &mut buffer).unwrap();
        assert_eq!((filled.address, filled.flags, filled.length), (0x50, 1, 11));
        assert_eq!(filled.bytes, place);
    }

    #[test]
    fn a_length_that_does_not_fit_is_refused() {
        let refused = Message::write(0x37, &[0; 0x1_0000]).err();
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
    }
}
