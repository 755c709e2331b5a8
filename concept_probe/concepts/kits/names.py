"""Names and what they are known for, by group: styles, people and places of kits, and everyday things.

A name is text alone: nothing here knows what anybody looks like. Descriptions say no name.
"""

from __future__ import annotations

Group = dict[str, str]
"""Name to a description without it."""

STYLE_GROUPS: dict[str, Group] = {
    "modern painters": {
        "Van Gogh": "a Dutch painter with thick swirling strokes and bright yellows",
        "Claude Monet": "a French painter of water lilies in soft broken light",
        "Paul Cezanne": "a French painter who built fruit and hills from blocks of colour",
        "Paul Gauguin": "a French painter of Tahiti in flat, warm colours",
        "Edgar Degas": "a French painter of ballet dancers in pastel",
        "Pierre-Auguste Renoir": "a French painter of rosy faces and dappled sunlight",
        "Edvard Munch": "a Norwegian painter of anxious faces under a wavy red sky",
        "Gustav Klimt": "an Austrian painter of figures covered with gold leaf and patterns",
    },
    "avant-garde painters": {
        "Pablo Picasso": "a Spanish painter who broke faces into angular planes",
        "Salvador Dali": "a Spanish painter of melting clocks in dreamlike deserts",
        "Wassily Kandinsky": "a Russian painter of floating circles and coloured lines",
        "Piet Mondrian": "a Dutch painter of black grids with red, yellow and blue squares",
        "Rene Magritte": "a Belgian painter of bowler hats and impossible skies",
        "Andy Warhol": "an American artist who repeated soup cans in garish colours",
        "Jackson Pollock": "an American painter who dripped paint over the whole canvas",
        "Frida Kahlo": "a Mexican painter of self-portraits with flowers and animals",
    },
    "old masters": {
        "Rembrandt": "a Dutch painter of faces in golden light and deep shadow",
        "Johannes Vermeer": "a Dutch painter of quiet rooms lit by a window on the left",
        "Caravaggio": "an Italian painter of dramatic figures against darkness",
        "Leonardo da Vinci": "an Italian painter of soft smiles and hazy backgrounds",
        "Hieronymus Bosch": "a Netherlandish painter of tiny monsters and strange gardens",
        "Albrecht Durer": "a German master of finely lined engravings",
        "Katsushika Hokusai": "a Japanese printmaker of great blue waves",
        "William Turner": "an English painter of ships dissolving in glowing mist",
    },
    "prints and crafts": {
        "woodcut": "bold black lines carved into a block and pressed on paper",
        "linocut": "flat shapes cut from a soft sheet and printed in one ink",
        "mosaic": "many small coloured tiles set side by side",
        "stained glass": "glowing coloured panes held together by lead",
        "origami": "sharply folded sheets of coloured paper",
        "embroidery": "coloured threads stitched into cloth",
        "blueprint": "thin white lines of a plan on deep blue paper",
        "graffiti": "spray paint in wild letters on a concrete wall",
        "papercut": "layers of paper with shapes snipped out of them",
        "batik": "dyed cloth with patterns kept pale by wax",
        "charcoal": "smudged black strokes on rough paper",
        "silhouette": "solid black outlines against a plain light",
    },
    "screens": {
        "pixel art": "a few coarse coloured squares as on an early game console",
        "low poly": "a few flat triangles as in an early computer model",
        "anime": "large eyes and clean outlines as in a Japanese animated series",
        "comic book": "inked outlines with dots of colour and speech balloons",
        "vaporwave": "pink and turquoise neon with palms and grids",
        "claymation": "figures modelled by hand and moved frame by frame",
        "vector art": "smooth flat shapes with crisp edges",
        "cyberpunk": "neon signs and wet streets of a dark future",
        "voxel art": "small cubes stacked into a blocky scene",
        "glitch art": "torn and shifted lines as of a broken signal",
        "ascii art": "letters and signs of a typewriter arranged as a picture",
        "infographic": "simple icons, arrows and labels on a pale page",
    },
}
PEOPLE: dict[str, Group] = {
    "scientists": {
        "Albert Einstein": "a physicist with wild white hair who found the theory of relativity",
        "Isaac Newton": "an English mathematician who explained gravity after seeing an apple fall",
        "Marie Curie": "a Polish-born chemist who discovered radium",
        "Charles Darwin": "a bearded English naturalist who explained the origin of species",
        "Galileo Galilei": "an Italian astronomer who saw the moons of Jupiter",
        "Nikola Tesla": "a Serbian-American inventor of alternating-current machines",
        "Stephen Hawking": "an English cosmologist in a wheelchair who wrote on black holes",
        "Ada Lovelace": "an English countess who wrote the first program for a machine",
    },
    "musicians": {
        "Ludwig van Beethoven": "a deaf German composer of nine symphonies",
        "Wolfgang Amadeus Mozart": "an Austrian child prodigy who composed The Magic Flute",
        "Johann Sebastian Bach": "a German organist who composed the Brandenburg Concertos",
        "Elvis Presley": "an American singer known as the King of Rock and Roll",
        "Michael Jackson": "an American singer of Thriller who danced the moonwalk",
        "David Bowie": "an English singer with a lightning bolt painted over his face",
        "Louis Armstrong": "an American jazz trumpeter with a gravelly voice",
        "Freddie Mercury": "a moustached English rock singer in a yellow jacket",
    },
    "statesmen": {
        "Abraham Lincoln": "a bearded American president with a tall black hat",
        "George Washington": "the first American president, in a white wig",
        "Winston Churchill": "a British prime minister with a cigar",
        "Napoleon Bonaparte": "a French emperor with a hand in his waistcoat",
        "Mahatma Gandhi": "an Indian leader in a white loincloth who fasted for freedom",
        "Nelson Mandela": "a South African president who was in prison for decades",
        "Barack Obama": "an American president who was born in Hawaii",
        "Queen Victoria": "a British monarch in a black dress and white veil",
    },
    "writers": {
        "William Shakespeare": "an English playwright with a ruff who wrote Hamlet",
        "Charles Dickens": "a bearded English novelist who wrote Oliver Twist",
        "Mark Twain": "an American novelist in a white suit who wrote Huckleberry Finn",
        "Leo Tolstoy": "a long-bearded Russian count who wrote War and Peace",
        "Jane Austen": "an English novelist in a bonnet who wrote Pride and Prejudice",
        "Ernest Hemingway": "an American novelist who wrote The Old Man and the Sea",
        "Virginia Woolf": "an English novelist who wrote Mrs Dalloway",
        "Oscar Wilde": "an Irish dandy who wrote The Picture of Dorian Gray",
    },
    "actors": {
        "Charlie Chaplin": "a silent-film comedian with a bowler hat and a cane",
        "Marilyn Monroe": "a blonde film star in a billowing white dress",
        "Audrey Hepburn": "a film star in a little black dress with a long cigarette holder",
        "Buster Keaton": "a silent-film comedian with a flat hat and a stone face",
        "Humphrey Bogart": "a film actor in a trench coat who ran a cafe in Casablanca",
        "Greta Garbo": "a Swedish film star who wanted to be alone",
        "James Dean": "a young film actor in a red jacket who died in a fast car",
        "Bruce Lee": "a martial artist in a yellow tracksuit",
    },
    "athletes": {
        "Muhammad Ali": "a heavyweight boxer who floated like a butterfly",
        "Pele": "a Brazilian footballer who won three World Cups",
        "Usain Bolt": "a Jamaican sprinter who points at the sky",
        "Serena Williams": "an American tennis player with the most modern Grand Slam titles",
        "Michael Jordan": "an American basketball player with the number 23",
        "Roger Federer": "a Swiss tennis player with an elegant backhand",
        "Jesse Owens": "an American sprinter who won four gold medals in Berlin",
        "Babe Ruth": "an American baseball player famous for home runs",
    },
}
PLACES: dict[str, Group] = {
    "landmarks": {
        "the Eiffel Tower": "a tall iron lattice that was built in Paris in 1889",
        "Big Ben": "a clock with four faces beside the parliament in London",
        "the Statue of Liberty": "a green lady with a torch on an island off New York",
        "the Taj Mahal": "a white marble tomb with four minarets in Agra",
        "the Colosseum": "a ruined oval arena of the gladiators in Rome",
        "the Sydney Opera House": "a concert hall with white shells beside an Australian harbour",
        "the Leaning Tower of Pisa": "a round white Tuscan bell tower that stands askew",
        "the Golden Gate Bridge": "a red suspension road across the bay of San Francisco",
    },
    "cities": {
        "Paris": "the French capital on the Seine",
        "London": "the British capital on the Thames",
        "New York": "an American metropolis with yellow cabs and skyscrapers",
        "Tokyo": "the Japanese capital with neon signs and crowded crossings",
        "Venice": "an Italian lagoon town with canals and gondolas",
        "Rome": "the Italian capital with ancient ruins and fountains",
        "Amsterdam": "the Dutch capital with canals, gables and bicycles",
        "Istanbul": "a Turkish metropolis with domes on both sides of the Bosporus",
    },
    "mountains": {
        "Mount Everest": "the highest summit on earth, between Nepal and Tibet",
        "Mount Fuji": "a snow-capped volcano near Tokyo",
        "the Matterhorn": "a pyramid of rock above Zermatt",
        "Kilimanjaro": "a snowy volcano above the plains of Tanzania",
        "Mount Rushmore": "a cliff in South Dakota with four carved presidents",
        "Uluru": "a huge red rock in the Australian desert",
        "Table Mountain": "a flat summit above Cape Town",
        "Mount Vesuvius": "the volcano that buried Pompeii",
    },
    "waters": {
        "Niagara Falls": "huge cascades between Canada and the United States",
        "Loch Ness": "a deep Scottish lake with a legendary monster",
        "the Dead Sea": "a salty lake in which bathers float",
        "the Great Barrier Reef": "the largest coral bank, off Queensland",
        "the Panama Canal": "a waterway with locks from the Atlantic to the Pacific",
        "Lake Como": "an Italian lake with villas under the Alps",
        "the Nile": "a long African river that floods the Egyptian fields",
        "the Amazon": "a huge South American river through the rainforest",
    },
    "wild places": {
        "the Grand Canyon": "a vast red gorge cut by the Colorado river",
        "Yellowstone": "a national park with geysers and bison in Wyoming",
        "the Sahara": "endless sand dunes in the north of Africa",
        "Antarctica": "the icy continent around the South Pole with penguins",
        "Monument Valley": "sandstone towers in a desert of Utah",
        "the Black Forest": "dark fir woods in the south-west of Germany",
        "the Galapagos Islands": "volcanic isles with giant tortoises off Ecuador",
        "Stonehenge": "a ring of huge standing stones on Salisbury Plain",
    },
}
EVERYDAY: dict[str, str] = {
    "animal": "dog cat horse cow sheep goat rabbit mouse elephant lion giraffe bear owl duck eagle frog snake turtle shark bee",
    "artifact": (
        "chair table lamp clock bicycle car bus train boat bridge house tower piano guitar drum hammer knife spoon cup bottle "
        "book pencil umbrella shoe hat shirt ladder key bell candle camera telephone television bed mirror basket"
    ),
    "food": "pizza sandwich hamburger pancake pie omelet salad cookie cheeseburger burrito",
    "plant": "tree flower cactus fern mushroom palm sunflower tulip rose oak",
    "object": "mountain river beach island cliff waterfall volcano glacier planet moon",
    "body": "hand foot nose ear eye skull skeleton",
}
"""Things that are far from one another, by the class that a lexical database puts them in."""
GENERIC = {
    "animal": "animal",
    "plant": "plant",
    "food": "food",
    "person": "person",
    "artifact": "object",
    "body": "part",
}
