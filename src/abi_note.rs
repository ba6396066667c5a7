//! Which FreeBSD this program is made for, as the kernel and pkg(8) look for it: the ELF note that
//! FreeBSD's own start files carry, and those of a cross-compiler do not.

/// An ELF note (elf(5)): sizes of name and description, type, name, description.
#[repr(C, align(4))]
struct Note {
    name_size: u32,
    description_size: u32,
    kind: u32,
    name: [u8; 8],
    description: u32,
}

/// NT_FREEBSD_ABI_TAG (sys/sys/elf_common.h).
const ABI_TAG: u32 = 1;

/// `__FreeBSD_version` of FreeBSD 14.0, the oldest that is supported.
const OLDEST: u32 = 1_400_097;

#[expect(unsafe_code, reason = "the note has to stand in its section")]
// SAFETY: the section is one of notes, which nothing but the kernel and tools reads, by the sizes
// that the note itself says.
#[unsafe(link_section = ".note.tag")]
#[used]
static ABI: Note = Note {
    name_size: 8,
    description_size: 4,
    kind: ABI_TAG,
    name: *b"FreeBSD\0",
    description: OLDEST,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Field row F10: the linked program holds the note, in a segment of notes. This very program
    /// is one, though for another system.
    #[test]
    fn the_program_holds_the_note() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut note = Vec::new();
        for word in [8, 4, ABI_TAG] {
            note.extend(u32::to_ne_bytes(word));
        }
        note.extend(b"FreeBSD\0");
        note.extend(OLDEST.to_ne_bytes());
        let places = program.windows(note.len()).filter(|it| *it == note);
        assert_eq!(places.count(), 1);
        let name = b".note.tag\0";
        assert!(program.windows(name.len()).any(|it| it == name));
    }
}
