"""The words that the drawn pictures use: chosen by hand, fit for a book cover in a classroom."""

TITLE_WORDS = """
Alone Amber Anchor Apple April Arrow Ash Atlas August Aurora Autumn Bamboo Banner Basket Bay Beach Beacon Bell Berry
Birch Bird Blossom Boat Bridge Bright Bronze Brook Brother Butterfly Cabin Candle Canyon Captain Caravan Castle Cedar
Chain Chapter Cherry Circus City Clay Clear Cliff Clock Cloud Clover Coast Comet Compass Copper Coral Corner Cottage
Country Crane Creek Crown Crystal Daisy Dance Dawn Desert Diary Distant Dolphin Dove Dragon Dream Drift Dust Eagle
Early Earth East Echo Eclipse Elm Ember Empire Empty Endless Evening Fable Falcon Far Farm Feather Fern Field Fig Fire
First Flame Flight Flower Fog Forest Forgotten Fountain Fox Friend Frost Galaxy Garden Gate Gentle Ghost Giant Glass
Golden Grain Grand Grass Gravity Great Grove Guest Harbor Harvest Hawk Hazel Heart Helm Heron Hidden High Hill Hollow
Home Honey Hope Horizon Horse House Hunter Ice Idea Indigo Infinity Ink Inner Iris Iron Island Ivory Ivy Jade Jasmine
Jewel Journey Joy July June Jungle Juniper Key Kind King Kingdom Kite Knight Ladder Lake Lamp Land Lantern Last Late
Laurel Lavender Leaf Legend Lemon Letter Light Lily Linen Lion Little Lonely Long Lost Lotus Lucky Lunar Magic Maple
Marble March Market Meadow Melody Memory Message Midnight Mill Mirror Mist Moon Morning Moss Mountain Music Mystery
Narrow New Night North Oak Oasis Ocean October Old Olive Orange Orchard Orchid Other Otter Owl Palace Palm Paper Path
Pearl Pepper Petal Phoenix Piano Pilgrim Pilot Pine Planet Poem Polar Pond Poppy Prairie Promise Puzzle Queen Quest
Quiet Rabbit Rain Rainbow Raven Reef Return Riddle Ridge Ring River Road Robin Rocket Rose Royal Ruby Saffron Sail
Salt Sand Sapphire School Sea Season Second Secret Seed September Shadow Shell Shelter Shepherd Shine Ship Shore Short
Silent Silk Silver Simple Singer Sister Sky Sleep Small Snow Soft Solar Song South Spark Sparrow Spice Spring Stable
Star Station Steel Stone Storm Story Strange Stream Street Summer Sun Sunday Sunrise Swan Sweet Swift Table Tale Tea
Temple Thistle Thread Thunder Tide Tiger Timber Time Tiny Topaz Tower Town Toy Trail Train Travel Treasure Tree Tulip
Turtle Twilight Under Unicorn Upper Valley Vanilla Velvet Village Vine Violet Violin Voice Voyage Wagon Walk Warm Water
Wave West Whale Wheat Wheel Whisper White Wild Willow Wind Window Wing Winter Wise Wolf Wonder Wood World Yard Year
Yellow Young Zenith Zephyr
""".split()

FIRST_NAMES = """
Adam Agnes Aisha Alan Albert Alice Amelia Amir Andre Anita Anna Anton Arthur Beatrix Ben Bianca Boris Bruno Carla Carmen
Chloe Clara Daniel David Diana Dora Edith Eduard Elena Elias Emil Emma Erik Esther Eva Felix Fiona Flora Frank Freya
George Grace Greta Hana Hannah Henry Hugo Ida Igor Ines Iris Ivan Jack Jana Jasper Joan Jonas Julia Karl Kenji Kira Laura
Lena Leo Lewis Lucia Lukas Magda Marco Maria Max Maya Mila Mira Morgan Nadia Nina Nora Olga Oliver Omar Oscar Paula Peter
Petra Philip Priya Quinn Rafael Ravi Rita Robert Rosa Ruth Samuel Sara Sofia Stella Tara Thomas Tim Uma Vera Victor Viola
Walter Wanda Xenia Yara Yusuf Zoe
""".split()

LAST_NAMES = """
Abbott Adler Almeida Andersen Archer Baker Barlow Becker Bennett Berg Blake Bishop Bond Brandt Brooks Campbell Carter
Castro Chen Clarke Cohen Cole Costa Cruz Dalton Diaz Dixon Dubois Duncan Eaton Ellis Evans Farrell Fischer Fleming Flores
Foster Fraser Garcia Gibson Graham Grant Green Hansen Harper Hayes Hill Hoffman Holmes Hughes Ibrahim Ito Jensen Jones
Kaplan Keller Kelly Khan Klein Kumar Lambert Larsen Lee Lopez Marsh Martin Maxwell Meyer Mills Moreau Morris Murphy Nash
Nelson Novak Nguyen Olsen Osborne Owens Park Patel Perez Porter Quigley Ramos Reed Reyes Rossi Rowe Russo Santos Sato
Schmidt Silva Singh Spencer Stone Sutton Suzuki Tanaka Taylor Turner Underwood Vargas Vega Vogel Walsh Watson Weber Wells
West Winter Wright Yamada York Young Zhang Ziegler
""".split()

COMPANIES = """
Acorn Albatros Altair Amberline Aquila Arbor Astra Aven Bluebird Borealis Brightway Calypso Cobalt Cordia Delmar Dynamo
Eastgate Elara Everfield Fennick Ferrox Galdor Glenmore Granit Halcyon Helios Hydra Ikon Juno Kestrel Kovar Lumen Lyra
Magnolia Meridian Metis Mirador Nordwind Nova Nubia Obelisk Octavia Opal Orbis Orion Pallas Pinnacle Quanta Quartz Redwood
Rivena Sable Sequoia Solara Stellar Sylvan Tamarin Tangent Terra Triton Umbra Vantage Vega Vertex Vista Wexford Xandor
Yarrow Zephyr Zircon
""".split()

METRICS = "revenue sales profit income exports orders visitors members output users".split()
