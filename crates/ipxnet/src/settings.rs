//! What a relay is told: its limits and the framing it uses on the LAN.
use std::{fmt, str::FromStr, time::Duration};

use wire::frame::FrameFormat;

/// In which framing packets of clients go to the LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// To one station: the framing it uses itself. To all: one frame in each framing that stations were heard with in the
    /// last ten minutes, so that the tunnel joins stations which do not see each other. Where none was heard, 802.2, which
    /// Windows 98 takes in the same case.
    #[default]
    Auto,
    /// This one always.
    Only(FrameFormat),
}

/// A word that names no framing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no framing of IPX; use auto, ethernet_ii, raw_802_3, llc (802.2) or snap")]
pub struct UnknownFraming(String);

impl FromStr for Framing {
    type Err = UnknownFraming;

    fn from_str(text: &str) -> Result<Self, UnknownFraming> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        crate::segment::FORMATS
            .into_iter()
            .find(|format| word(*format) == text)
            .map(Self::Only)
            .ok_or_else(|| UnknownFraming(text.to_owned()))
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Only(format) => word(*format),
        })
    }
}

/// The framing's word in flags and metrics.
pub(crate) const fn word(format: FrameFormat) -> &'static str {
    match format {
        FrameFormat::EthernetII => "ethernet_ii",
        FrameFormat::Raw8023 => "raw_802_3",
        FrameFormat::Llc => "llc",
        FrameFormat::Snap => "snap",
    }
}

/// So many a second in the long run, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

/// How a relay behaves. `Settings::default()` is what the documentation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub framing: Framing,
    /// Lets NetBIOS and Windows' file sharing over IPX pass. Off: tunnel clients are strangers, and what Windows shares
    /// without a password is none of their business.
    pub netbios: bool,
    /// Full: newcomers are not answered, which their programs show as a failed connection.
    pub clients_max: usize,
    /// Clients behind one IPv4 address, so that one machine cannot fill the table.
    pub clients_per_ip_max: usize,
    /// Of one client, in packets; a broadcast counts as four. Above: dropped.
    pub client_rate: Rate,
    /// From the LAN into the tunnel, in packets of all stations. Above: dropped.
    pub segment_rate: Rate,
    /// New clients.
    pub newcomer_rate: Rate,
    /// A client that was not heard for so long is forgotten.
    pub idle_limit: Duration,
    /// Silent for so long: it is pinged, and again after the same time.
    pub ping_after: Duration,
    /// The mark of this relay on its frames; differs from that of every other relay on the LAN.
    pub id: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            framing: Framing::Auto,
            netbios: false,
            clients_max: 64,
            clients_per_ip_max: 16,
            client_rate: Rate { per_second: 800, burst: 1600 },
            segment_rate: Rate { per_second: 4000, burst: 8000 },
            newcomer_rate: Rate { per_second: 5, burst: 32 },
            idle_limit: Duration::from_mins(10),
            ping_after: Duration::from_mins(2),
            id: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Framing;

    #[test]
    fn framings_are_read_as_they_are_written() {
        for text in ["auto", "ethernet_ii", "raw_802_3", "llc", "snap"] {
            assert_eq!(text.parse::<Framing>().unwrap().to_string(), text);
        }
        assert!("802.2".parse::<Framing>().unwrap_err().to_string().contains("raw_802_3"));
    }
}
