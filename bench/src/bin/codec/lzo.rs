//! LZO, from the library if this machine has it. It is GPL-2, so this program is not linked to it.

use std::ffi::{CStr, c_int, c_uint, c_ulong, c_void};

use shrbuf_bench::Result;

use crate::codecs::Bytes;

/// `LZO1X_1_MEM_COMPRESS`, for 64-bit pointers.
const WORK: usize = 16384 * 8;
/// `LZO_VERSION` of the headers that these declarations are from.
const VERSION: c_uint = 0x20a0;

type Init = unsafe extern "C" fn(c_uint, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int) -> c_int;
type Code = unsafe extern "C" fn(*const u8, c_ulong, *mut u8, *mut c_ulong, *mut c_void) -> c_int;

/// The library.
pub struct Lzo {
    compress: Code,
    decompress: Code,
    work: Vec<u64>,
}

fn symbol(library: *mut c_void, name: &CStr) -> Result<*mut c_void> {
    // SAFETY: the handle is of dlopen, and is never closed.
    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
    if symbol.is_null() { Err(format!("liblzo2.so.2 lacks {name:?}").into()) } else { Ok(symbol) }
}

impl Lzo {
    /// Loads it.
    ///
    /// # Errors
    /// It is not installed.
    pub fn open() -> Result<Lzo> {
        // SAFETY: loading it runs no code but the dynamic linker's and its (empty) initialisers.
        let library = unsafe { libc::dlopen(c"liblzo2.so.2".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err("liblzo2.so.2 is not installed (scripts/setup bench installs it)".into());
        }
        let init = symbol(library, c"__lzo_init_v2")?;
        // SAFETY: these are the types of lzoconf.h and lzo1x.h.
        let (init, compress, decompress) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Init>(init),
                std::mem::transmute::<*mut c_void, Code>(symbol(library, c"lzo1x_1_compress")?),
                std::mem::transmute::<*mut c_void, Code>(symbol(library, c"lzo1x_decompress_safe")?),
            )
        };
        // SAFETY: -1 stands for sizes that are not to be compared.
        if unsafe { init(VERSION, -1, -1, -1, -1, -1, -1, -1, -1, -1) } != 0 {
            return Err("liblzo2.so.2 does not start".into());
        }
        Ok(Lzo { compress, decompress, work: vec![0; WORK / 8] })
    }
}

impl Bytes for Lzo {
    fn compress(&mut self, from: &[u8], to: &mut [u8]) -> Result<usize> {
        // The longest that it ever writes, by its documentation; it is not told where `to` ends.
        if to.len() < from.len() + from.len() / 16 + 64 + 3 {
            return Err("lzo needs a longer buffer".into());
        }
        let (mut length, work) = (to.len() as c_ulong, self.work.as_mut_ptr().cast());
        // SAFETY: both buffers and the work memory are as long as it asks for.
        let code = unsafe { (self.compress)(from.as_ptr(), from.len() as c_ulong, to.as_mut_ptr(), &mut length, work) };
        if code == 0 { Ok(length as usize) } else { Err(format!("lzo1x_1_compress: {code}").into()) }
    }

    fn decompress(&mut self, from: &[u8], to: &mut [u8]) -> Result<()> {
        let (mut length, work) = (to.len() as c_ulong, self.work.as_mut_ptr().cast());
        // SAFETY: it is told how long both buffers are.
        let code =
            unsafe { (self.decompress)(from.as_ptr(), from.len() as c_ulong, to.as_mut_ptr(), &mut length, work) };
        if code == 0 { Ok(()) } else { Err(format!("lzo1x_decompress_safe: {code}").into()) }
    }
}
