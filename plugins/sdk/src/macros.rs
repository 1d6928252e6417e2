//! The macro that makes a plugin of a type.

/// Makes a net plugin of `$plugin`, a type that implements [`crate::net::NetPlugin`]: defines
/// `HEADER` (its [`crate::abi::image::PluginHeader`]) and `entry` (its
/// [`crate::abi::plugin::Entry`]) for whoever links the crate statically, and, in a build for
/// `x86_64-unknown-none` with the crate's feature `blob`, all that an image needs: the header
/// section, the entry symbol and a panic handler (which the build checks that nothing reaches).
#[macro_export]
macro_rules! net_plugin {
    ($plugin:ty) => {
        /// The image header; length, entry and hash are zero here.
        pub const HEADER: $crate::abi::image::PluginHeader = $crate::net::header::<$plugin>();

        /// Fills the ops table of `call`: the plugin's entry for static linking.
        ///
        /// # Safety
        /// `call` is null or valid, and its `ops` valid for writes of `ops_size` bytes.
        #[allow(unsafe_code)] // The calling contract of an entry.
        pub unsafe extern "sysv64" fn entry(
            call: *mut $crate::abi::plugin::EntryCall,
        ) -> $crate::abi::plugin::Status {
            // SAFETY: the caller's contract is the same.
            unsafe { $crate::net::entry::<$plugin>(call) }
        }

        #[cfg(all(feature = "blob", target_os = "none"))]
        #[allow(unsafe_code)] // Names and places a symbol and a section.
        mod npa_image {
            #[used]
            #[unsafe(link_section = ".npa_header")]
            static HEADER: $crate::abi::image::PluginHeader = super::HEADER;

            // SAFETY: the caller's contract is `entry`'s.
            #[unsafe(no_mangle)]
            unsafe extern "sysv64" fn npa_plugin_main(
                call: *mut $crate::abi::plugin::EntryCall,
            ) -> $crate::abi::plugin::Status {
                // SAFETY: the caller's contract is the same.
                unsafe { super::entry(call) }
            }

            #[panic_handler]
            fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
                loop {
                    core::hint::spin_loop();
                }
            }
        }
    };
}
